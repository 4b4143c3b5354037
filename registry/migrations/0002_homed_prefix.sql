-- Prefixes that this node answers for itself, without having allotted them to an enterprise: its own
-- (IDNODE_NODE_PREFIX), and those homed by HOME_NA. One that is allotted as well is what it was
-- allotted as.
CREATE TABLE homed_prefix (
    key      text COLLATE "C" PRIMARY KEY,
    prefix   text COLLATE "C" NOT NULL,
    homed_at timestamptz NOT NULL DEFAULT now()
);
