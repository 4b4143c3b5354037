-- The book of record: enterprises, prefixes, identifiers, applications, keys; their history; the
-- outbox of changes; the ledger of resolutions. Times are UTC. Forward only.

-- Versions only grow. No CACHE: numbers taken under a row lock must follow the order of the locks.
CREATE SEQUENCE record_version NO CYCLE;

-- The calendar day of Asia/Shanghai, in days since 1970-01-01.
CREATE FUNCTION shanghai_day(at timestamptz) RETURNS integer LANGUAGE sql IMMUTABLE AS
$$ SELECT floor((extract(epoch FROM at) + 28800) / 86400)::integer $$;

CREATE TABLE enterprise (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text        NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    credit_code   text        NOT NULL UNIQUE,  -- unified social credit code; abroad: registration number
    division      text        CHECK (division ~ '^[0-9]{6}$'),  -- GB/T 2260; NULL abroad
    country       text        NOT NULL CHECK (country ~ '^[A-Z]{2}$'),  -- ISO 3166-1 alpha-2
    created_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE prefix (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    prefix        text COLLATE "C" NOT NULL,
    key           text COLLATE "C" NOT NULL UNIQUE,
    enterprise_id bigint      NOT NULL REFERENCES enterprise,
    mode          text        NOT NULL CHECK (mode IN ('hosted', 'self_run')),
    suspended_at  timestamptz,
    suspend_reason text,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX prefix_enterprise ON prefix (enterprise_id);

-- Who changed the book, when, through which door. One row a bulk registration, one a single write.
CREATE TABLE change (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    actor  text        NOT NULL,
    door   text        NOT NULL,
    detail text        NOT NULL DEFAULT '',
    at     timestamptz NOT NULL DEFAULT now()
);

-- One row an identifier, found by one index look-up: the primary key of one hash partition.
-- `data` holds all values in the canonical encoding (resolver/record.py); a value's timestamp 0
-- means changed_at. Defaults are taken in the order of the columns, so that a new row's two
-- versions are one number. A deleted identifier keeps its row, so that its version stays.
CREATE TABLE identifier (
    key           text COLLATE "C" NOT NULL,
    handle        text COLLATE "C" NOT NULL,
    version       bigint      NOT NULL DEFAULT nextval('record_version'),
    first_version bigint      NOT NULL DEFAULT currval('record_version'),
    change_id     bigint      NOT NULL,
    changed_at    timestamptz NOT NULL,
    deleted       boolean     NOT NULL,
    data          bytea       NOT NULL,
    PRIMARY KEY (key)
) PARTITION BY HASH (key);

-- What a row held before it was changed: with `change`, the full history (who, when, before, after;
-- the after is the next row of the same key, or the present one).
CREATE TABLE identifier_history (
    key        text COLLATE "C" NOT NULL,
    version    bigint      NOT NULL,
    handle     text COLLATE "C" NOT NULL,
    change_id  bigint      NOT NULL,
    changed_at timestamptz NOT NULL,
    deleted    boolean     NOT NULL,
    data       bytea       NOT NULL,
    PRIMARY KEY (key, version)
) PARTITION BY HASH (key);

DO $$
BEGIN
    -- 16 partitions: 62 million rows each at a billion identifiers, and few enough that a
    -- transaction's locks stay cheap.
    FOR n IN 0..15 LOOP
        EXECUTE format('CREATE TABLE identifier_p%s PARTITION OF identifier
                        FOR VALUES WITH (MODULUS 16, REMAINDER %s)', n, n);
        EXECUTE format('CREATE TABLE identifier_history_p%s PARTITION OF identifier_history
                        FOR VALUES WITH (MODULUS 16, REMAINDER %s)', n, n);
    END LOOP;
END $$;

-- What workers must hear of. Written in the transaction of the change; a crash before it was
-- published leaves the row, and the next worker publishes it.
CREATE TABLE outbox (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic   text   NOT NULL CHECK (topic IN ('record', 'registered', 'prefixes', 'keys')),
    key     text   NOT NULL DEFAULT '',  -- record: identifier key; registered: prefix key
    version bigint NOT NULL DEFAULT 0
);

CREATE FUNCTION identifier_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO identifier_history (key, version, handle, change_id, changed_at, deleted, data)
    VALUES (OLD.key, OLD.version, OLD.handle, OLD.change_id, OLD.changed_at, OLD.deleted, OLD.data);
    -- Taken here, under the lock of the row: later changes always get greater numbers.
    NEW.version := nextval('record_version');
    NEW.first_version := OLD.first_version;
    INSERT INTO outbox (topic, key, version) VALUES ('record', NEW.key, NEW.version);
    IF OLD.deleted <> NEW.deleted THEN
        INSERT INTO registration_tally AS t (prefix_key, day, shard, added, removed)
        VALUES (split_part(NEW.key, '/', 1), shanghai_day(NEW.changed_at), pg_backend_pid() % 16,
                OLD.deleted::int, NEW.deleted::int)
        ON CONFLICT (prefix_key, day, shard) DO UPDATE
            SET added = t.added + excluded.added, removed = t.removed + excluded.removed;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER identifier_changed BEFORE UPDATE ON identifier
    FOR EACH ROW EXECUTE FUNCTION identifier_changed();

-- Called by whoever inserts, in the transaction of the insert: counts new identifiers, and has
-- what is cached as "not found" below the prefix announced as outdated. (A statement trigger with
-- a transition table would do it unasked, and cost bulk registration an eighth of its rate.)
CREATE FUNCTION note_registered(prefix text, at timestamptz, number bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF number = 0 THEN
        RETURN;
    END IF;
    INSERT INTO registration_tally AS t (prefix_key, day, shard, added)
    VALUES (prefix, shanghai_day(at), pg_backend_pid() % 16, number)
    ON CONFLICT (prefix_key, day, shard) DO UPDATE SET added = t.added + excluded.added;
    INSERT INTO outbox (topic, key) VALUES ('registered', prefix);
END $$;

CREATE FUNCTION identifier_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'identifiers are marked deleted, never removed: their version must stay';
END $$;
CREATE TRIGGER identifier_stays BEFORE DELETE ON identifier
    FOR EACH ROW EXECUTE FUNCTION identifier_stays();

CREATE FUNCTION outbox_written() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('idnode_outbox', '');
    RETURN NULL;
END $$;
CREATE TRIGGER outbox_written AFTER INSERT ON outbox
    FOR EACH STATEMENT EXECUTE FUNCTION outbox_written();

-- Identifiers registered and deleted a day, spread over rows so that writers do not queue.
CREATE TABLE registration_tally (
    prefix_key text COLLATE "C" NOT NULL,
    day        integer NOT NULL,  -- days since 1970-01-01, Asia/Shanghai
    shard      integer NOT NULL,
    added      bigint  NOT NULL DEFAULT 0,
    removed    bigint  NOT NULL DEFAULT 0,
    PRIMARY KEY (prefix_key, day, shard)
);

CREATE TABLE application (
    id              text PRIMARY KEY,
    name            text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    kind            text NOT NULL,
    type            text NOT NULL,
    owner           text NOT NULL CHECK (length(owner) BETWEEN 1 AND 200),
    division        text CHECK (division ~ '^[0-9]{6}$'),
    country         text NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
    contract_sha256 text CHECK (contract_sha256 ~ '^[0-9a-f]{64}$'),
    sandbox         boolean NOT NULL DEFAULT false,
    created_at      timestamptz NOT NULL DEFAULT now()
);
CREATE SEQUENCE application_number;

-- A key is shown once; only its SHA-256 is kept (256 random bits need no salt and no stretching).
CREATE TABLE api_key (
    id             text PRIMARY KEY,
    secret_sha256  bytea NOT NULL CHECK (length(secret_sha256) = 32),
    role           text NOT NULL CHECK (role IN ('operator', 'enterprise', 'application')),
    enterprise_id  bigint REFERENCES enterprise,
    application_id text REFERENCES application,
    created_at     timestamptz NOT NULL DEFAULT now(),
    revoked_at     timestamptz,
    CHECK ((role = 'enterprise') = (enterprise_id IS NOT NULL)),
    CHECK ((role = 'application') = (application_id IS NOT NULL))
);

-- The ledger (metrics/ledger.py): absolute values of journal slots, the greater one kept.
CREATE TABLE journal (
    id        uuid PRIMARY KEY,
    instance  text        NOT NULL,
    opened_at timestamptz NOT NULL,
    state     text        NOT NULL CHECK (state IN ('open', 'closed', 'damaged')),
    damage    text
);
CREATE INDEX journal_open ON journal (instance) WHERE state <> 'closed';

CREATE TABLE ledger_count (
    journal_id   uuid    NOT NULL REFERENCES journal,
    slot         integer NOT NULL,
    day          integer NOT NULL,
    level        text    NOT NULL,
    prefix       text COLLATE "C" NOT NULL,
    caller_class text    NOT NULL,
    caller       text    NOT NULL,
    channel      text    NOT NULL,
    outcome      text    NOT NULL,
    value        bigint  NOT NULL CHECK (value >= 0),
    PRIMARY KEY (journal_id, slot)
);
CREATE INDEX ledger_count_day ON ledger_count (day);

CREATE TABLE ledger_source (
    journal_id uuid    NOT NULL REFERENCES journal,
    slot       integer NOT NULL,
    day        integer NOT NULL,
    prefix     text COLLATE "C" NOT NULL,
    source     text    NOT NULL,
    value      bigint  NOT NULL CHECK (value >= 0),
    PRIMARY KEY (journal_id, slot)
);
CREATE INDEX ledger_source_day ON ledger_source (day);

-- Days whose count cannot be claimed, and why.
CREATE TABLE ledger_damage (
    journal_id uuid    NOT NULL,
    day        integer NOT NULL,
    reason     text    NOT NULL,
    found_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (journal_id, day)
);
