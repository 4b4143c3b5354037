"""Every text of the command line, in Chinese and English."""

from typing import Final

# key: (Chinese, English)
TEXTS: Final = {
    # the program
    "cmd": (
        "工业互联网标识解析二级节点。",
        "A secondary node of the industrial internet identifier resolution system.",
    ),
    "opt.lang": ("界面语言", "language of help and output"),
    "opt.debug": ("出错时显示完整的调用栈", "show the traceback when a command fails"),
    "opt.json": ("输出 JSON，供程序读取", "JSON for programs instead of text"),
    "opt.help": ("显示本说明并退出。", "Show this message and exit."),
    "panel.arguments": ("参数", "Arguments"),
    "panel.options": ("选项", "Options"),
    "panel.commands": ("命令", "Commands"),
    "panel.required": ("[必填]", "[required]"),
    "panel.default": ("[默认：{}]", "[default: {}]"),
    # life
    "cmd.up": (
        "启动内置数据库、缓存与节点；用 Ctrl-C 停止。",
        "Start the node with its embedded stores; stop it with Ctrl-C.",
    ),
    "cmd.serve": (
        "连接已配置的数据库和缓存启动节点（IDNODE_POSTGRES_URL、IDNODE_REDIS_URL）。",
        "Start the node on the stores of IDNODE_POSTGRES_URL and IDNODE_REDIS_URL.",
    ),
    "cmd.worker": ("由节点自己启动的工作进程。", "A worker process, started by the node itself."),
    "arg.worker.fd": ("监听套接字的描述符", "descriptor of the listening socket"),
    "opt.worker.https": ("HTTPS 监听套接字的描述符", "descriptor of the listening socket of HTTPS"),
    "opt.worker.udp": ("Handle 的 UDP 套接字的描述符", "descriptor of the UDP socket of Handle"),
    "opt.worker.tcp": (
        "Handle 的 TCP 监听套接字的描述符",
        "descriptor of the listening TCP socket of Handle",
    ),
    "opt.worker.ready": (
        "报告就绪的管道的描述符",
        "descriptor of the pipe in which to say that it is ready",
    ),
    "opt.workers": (
        "工作进程数（默认取 IDNODE_WORKERS，否则为 1）",
        "processes that serve (default: IDNODE_WORKERS, or 1)",
    ),
    "cmd.migrate": ("把数据库结构升级到本程序的版本。", "Bring the schema up to this program."),
    # enterprises
    "cmd.enterprise": ("登记和查看企业。", "Enterprises that the node serves."),
    "cmd.enterprise.add": (
        "登记企业；重复登记相同内容不会改变任何东西。",
        "Add an enterprise; adding the same again changes nothing.",
    ),
    "cmd.enterprise.list": ("列出全部企业。", "List all enterprises."),
    "cmd.enterprise.show": (
        "显示企业及其前缀和标识数量。",
        "Show an enterprise, its prefixes and its numbers of identifiers.",
    ),
    "opt.enterprise.name": ("企业全称", "full name of the enterprise"),
    "opt.enterprise.credit_code": (
        "18位统一社会信用代码；境外企业为当地注册号",
        "unified social credit code (18 characters); abroad the local registration number",
    ),
    "opt.division": (
        "六位行政区划代码（GB/T 2260），例如柳州 450200",
        "division, six digits of GB/T 2260, such as 450200 for Liuzhou",
    ),
    "opt.country": (
        "境外所在国家或地区的两位代码（ISO 3166-1），例如越南 VN",
        "country or region if abroad, two letters of ISO 3166-1, such as VN",
    ),
    "arg.credit_code": (
        "统一社会信用代码或境外注册号",
        "unified social credit code, or registration number abroad",
    ),
    # prefixes
    "cmd.prefix": ("分配和管理企业前缀。", "Prefixes of enterprises."),
    "cmd.prefix.allot": ("给企业分配前缀。", "Allot a prefix to an enterprise."),
    "cmd.prefix.list": ("列出全部前缀。", "List all prefixes."),
    "cmd.prefix.suspend": (
        "停用前缀：不再解析，不能写入。",
        "Suspend a prefix: it is neither resolved nor written.",
    ),
    "cmd.prefix.resume": ("恢复被停用的前缀。", "Put a suspended prefix back into service."),
    "arg.prefix": ("前缀，例如 88.608.5288", "prefix, such as 88.608.5288"),
    "opt.prefix.enterprise": ("企业的统一社会信用代码", "credit code of the enterprise"),
    "opt.prefix.mode": (
        "hosted：由本节点托管；self_run：企业自建节点",
        "hosted: identifiers live here; self_run: the enterprise runs its own node",
    ),
    "opt.prefix.reason": ("停用原因，会保存并显示", "why; it is kept and shown"),
    "cmd.prefix.delegate": (
        "把前缀委托给企业自建的节点：向该节点询问其站点信息，分配前缀并保存，一步完成。",
        "Delegate a prefix to the node of its enterprise: ask that node for its site, allot the"
        " prefix and keep the site, in one step.",
    ),
    "opt.prefix.node": (
        "该节点的 Handle 地址，例如 192.0.2.7:2641",
        "where that node speaks Handle, such as 192.0.2.7:2641",
    ),
    "opt.prefix.for_derived": (
        "该节点也负责此前缀的下级前缀",
        "that node answers for the prefixes derived from this one, too",
    ),
    "cmd.prefix.admin": (
        "给前缀设置管理员：不给文件时生成一个密钥，只显示这一次。",
        "Give a prefix an administrator; without a file a secret is made and printed once.",
    ),
    "opt.prefix.secret_file": (
        "含密钥的文件（末尾换行不算）",
        "file with the secret (without the line end)",
    ),
    "opt.prefix.public_key": (
        "公钥文件：PEM，或 Handle.Net 的 pubkey.bin；RSA、DSA、Ed25519、SM2",
        "file with a public key: PEM, or pubkey.bin of Handle.Net; RSA, DSA, Ed25519, SM2",
    ),
    "opt.prefix.index": (
        "密钥在前缀标识中的索引（默认密钥 300，公钥 301）",
        "index of the key in the prefix handle (default: 300 for a secret, 301 for a public key)",
    ),
    # registration
    "cmd.register": (
        "登记产品文件中的标识：CSV、XLSX 或 JSON lines。有错误的行会写入错误文件，"
        "其余行照常登记（退出码 3）。中断后重新运行即可继续。",
        "Register the products of a file: CSV, XLSX or JSON lines. Bad rows are written to the"
        " errors file, the others are registered (exit code 3). Run it again after an"
        " interruption.",
    ),
    "arg.register.file": ("产品文件", "product file"),
    "opt.register.prefix": ("登记到哪个前缀下", "prefix below which to register"),
    "opt.register.suffix": ("作为后缀的列", "column that becomes the suffix"),
    "opt.register.value": (
        "列与标识值的对应，可重复，例如 NAME=名称",
        "column that becomes a value, repeatable, such as NAME=name",
    ),
    "opt.register.mapping": ("列对应关系文件（TOML）", "file with the mapping of columns (TOML)"),
    "opt.register.sheet": ("XLSX 的工作表", "sheet of an XLSX workbook"),
    "opt.register.check": (
        "检查后缀：auto 按列名，gtin 检查 GTIN 校验位，none 不检查",
        "check of the suffix: auto by the column's name, gtin its check digit, none",
    ),
    "opt.register.dry_run": ("只检查和预览，不写入", "check and preview, write nothing"),
    "opt.register.errors": (
        "错误行写入的文件（默认在产品文件旁：FILE.errors.csv）",
        "file for the bad rows (default: FILE.errors.csv beside the input)",
    ),
    # resolving and export
    "cmd.resolve": (
        "向运行中的节点解析标识；用 - 从标准输入读取，每行一个。",
        "Resolve identifiers at the running node; - reads them from standard input, one a line.",
    ),
    "arg.identifiers": (
        "标识，例如 88.608.5288/00041250500735",
        "identifiers, such as 88.608.5288/00041250500735",
    ),
    "cmd.export": ("导出全部标识。", "Export all identifiers."),
    "opt.export.prefix": ("只导出此前缀下的标识", "only identifiers below this prefix"),
    "opt.export.output": (
        "写入文件（写完整后才出现）；默认标准输出",
        "write to this file, which appears when it is whole; default: standard output",
    ),
    "opt.export.format": ("格式：每行一个 JSON，或 CSV", "JSON lines, or CSV"),
    # applications
    "cmd.application": ("登记标识解析应用。", "Applications that resolve through the node."),
    "cmd.application.add": ("登记应用。", "Add an application."),
    "cmd.application.list": ("列出全部应用。", "List all applications."),
    "cmd.application.contract": (
        "登记接入合同文件的 SHA-256 摘要。",
        "Record the SHA-256 of the file of an application's contract.",
    ),
    "opt.application.name": ("应用名称", "name of the application"),
    "opt.application.kind": (
        "应用类别：supply-chain 供应链管理、in-plant-logistics 工厂内物流、"
        "traceability 关键产品追溯、customization 个性化定制、lifecycle 全生命周期管理、"
        "research 研发设计、manufacturing 生产制造、management 经营管理、logistics 物流配送、"
        "after-sales 售后服务、energy-saving 节能减排、safety 安全生产、other 其他",
        "what it does: supply-chain, in-plant-logistics, traceability, customization, lifecycle,"
        " research, manufacturing, management, logistics, after-sales, energy-saving, safety,"
        " other",
    ),
    "opt.application.owner": ("应用单位全称", "full name of its owner"),
    "opt.application.type": (
        "应用类型：app、mini-program 小程序、web 网页、pc 客户端、other 其他",
        "how users reach it: app, mini-program, web, pc, other",
    ),
    "opt.application.contract": (
        "合同文件，只保存其 SHA-256 摘要",
        "file of the contract; only its SHA-256 is kept",
    ),
    "opt.application.contract_sha256": (
        "合同文件的 SHA-256 摘要（64位十六进制）",
        "SHA-256 of the contract's file (64 hex digits)",
    ),
    "opt.application.sandbox": (
        "沙箱应用：其解析量显示但不计入",
        "a sandbox: its resolutions are shown but never counted",
    ),
    "arg.application": ("应用编号，例如 app-000001", "id of the application, such as app-000001"),
    "arg.contract": ("合同文件", "file of the contract"),
    # keys
    "cmd.key": ("管理访问密钥。", "Keys of callers."),
    "cmd.key.create": (
        "创建密钥；只显示这一次。",
        "Create a key; it is printed once and kept nowhere.",
    ),
    "cmd.key.list": ("列出密钥（不含秘密部分）。", "List the keys, without their secrets."),
    "cmd.key.revoke": ("吊销密钥。", "Revoke a key."),
    "opt.key.application": ("应用编号", "for this application"),
    "opt.key.enterprise": ("企业的统一社会信用代码", "for the enterprise with this credit code"),
    "opt.key.operator": ("运营者密钥", "for the operator"),
    "arg.key": ("密钥编号（idn_ 后的12个字符）", "id of the key: the 12 characters after idn_"),
    # measures and doctor
    "cmd.measures": (
        "对照各项政策措施显示节点的现状、差距和预计满足的日期。",
        "Where the node stands against the policies, what is missing, and when it would be met.",
    ),
    "opt.measures.policy": (
        "政策文件，或含有多个 *.toml 的目录（默认使用节点所用的政策）",
        "policy file, or a folder of *.toml; default: the policies that the node judges by",
    ),
    "cmd.doctor": (
        "检查全部依赖、限制和时钟，并说明怎么办。",
        "Check every dependency, limit and clock, and say what to do.",
    ),
    # columns
    "column.a_day": ("目前速度（每日）", "pace (a day)"),
    "column.application": ("应用", "application"),
    "column.by": ("口径", "reading"),
    "column.check": ("检查项", "check"),
    "column.condition": ("条件", "condition"),
    "column.contract": ("合同摘要", "contract"),
    "column.created_at": ("登记时间", "entered"),
    "column.credit_code": ("信用代码", "credit code"),
    "column.do": ("怎么办", "what to do"),
    "column.field": ("列", "field"),
    "column.found": ("结果", "found"),
    "column.id": ("编号", "id"),
    "column.identifiers": ("标识数", "identifiers"),
    "column.index": ("索引", "index"),
    "column.integrations": ("应用接入（口径）", "integrations (reading)"),
    "column.is": ("现状", "is"),
    "column.kind": ("类别", "kind"),
    "column.measure": ("措施", "measure"),
    "column.missing": ("尚缺", "missing"),
    "column.mode": ("方式", "mode"),
    "column.name": ("名称", "name"),
    "column.number": ("数值", "number"),
    "column.outlook": ("按目前速度", "at the present pace"),
    "column.owner": ("所有者", "owner"),
    "column.place": ("所在地", "place"),
    "column.prefix": ("前缀", "prefix"),
    "column.reading": ("解析量（口径）", "resolutions (reading)"),
    "column.today": ("今日至今", "today so far"),
    "column.reason": ("原因", "reason"),
    "column.revoked_at": ("吊销时间", "revoked"),
    "column.role": ("角色", "role"),
    "column.row": ("行", "row"),
    "column.sandbox": ("沙箱", "sandbox"),
    "column.state": ("状态", "state"),
    "column.suggestion": ("建议", "suggestion"),
    "column.timestamp": ("更新时间", "timestamp"),
    "column.title": ("内容", "title"),
    "column.ttl": ("有效期（秒）", "ttl (s)"),
    "column.type": ("类型", "type"),
    "column.value": ("值", "value"),
    "column.wanted": ("要求", "wanted"),
    # words
    "mode.hosted": ("托管", "hosted"),
    "mode.self_run": ("自建", "self-run"),
    "role.application": ("应用", "application"),
    "role.enterprise": ("企业", "enterprise"),
    "role.operator": ("运营者", "operator"),
    "state.active": ("启用", "active"),
    "state.suspended": ("停用", "suspended"),
    "word.none": ("无", "none"),
    "word.unknown": ("未知", "unknown"),
    "word.yes": ("是", "yes"),
    # results
    "enterprise.added": ("已登记：{name}（{code}）", "added: {name} ({code})"),
    "enterprise.unchanged": (
        "已经登记过，没有变化：{name}（{code}）",
        "already there, unchanged: {name} ({code})",
    ),
    "prefix.allotted": ("已把 {prefix} 分配给 {name}", "{prefix} is allotted to {name}"),
    "prefix.unchanged": (
        "{prefix} 早已分配给 {name}，没有变化",
        "{prefix} was already allotted to {name}, unchanged",
    ),
    "prefix.suspended": ("{prefix} 已停用", "{prefix} is suspended"),
    "prefix.suspended.before": (
        "{prefix} 早已停用，没有变化",
        "{prefix} was already suspended, unchanged",
    ),
    "prefix.resumed": ("{prefix} 已恢复", "{prefix} is in service again"),
    "prefix.resumed.before": (
        "{prefix} 未被停用，没有变化",
        "{prefix} was not suspended, unchanged",
    ),
    "prefix.delegated": (
        "{prefix} 已委托给 {name} 的节点（{places}）",
        "{prefix} is delegated to the node of {name} ({places})",
    ),
    "prefix.delegated.before": (
        "{prefix} 早已委托给 {name} 的节点（{places}），没有变化",
        "{prefix} was already delegated to the node of {name} ({places}), unchanged",
    ),
    "prefix.node.unanswered": (
        "{node} 没有给出站点信息：{reason}",
        "{node} did not tell its site: {reason}",
    ),
    "prefix.node.signed": (
        "{place} 已用其公钥签名，公钥指纹（SHA-256）：{fingerprint}",
        "{place} has signed with its key; SHA-256 of the key: {fingerprint}",
    ),
    "prefix.node.unsigned": (
        "{place} 没有签名，请向其运营方核对公钥指纹（SHA-256）：{fingerprint}",
        "{place} has not signed: ask its operator whether SHA-256 of its key is {fingerprint}",
    ),
    "prefix.node.nowhere": (
        "{node} 的站点信息中没有其他机器能访问的地址",
        "the site of {node} names no address that others can ask",
    ),
    "prefix.node.do": (
        "检查地址，以及该节点的 IDNODE_HANDLE 和 IDNODE_PUBLIC_ADDRESS",
        "check the address, and IDNODE_HANDLE and IDNODE_PUBLIC_ADDRESS of that node",
    ),
    "prefix.admin": ("{identity} 现在可以管理该前缀", "{identity} may administer the prefix now"),
    "prefix.admin.before": (
        "{identity} 早已可以管理该前缀，没有变化",
        "{identity} could administer the prefix before, unchanged",
    ),
    "prefix.admin.secret": (
        "{identity} 现在可以用此密钥管理该前缀；它不会再显示",
        "{identity} may administer the prefix with this secret, which is not shown again",
    ),
    "prefix.secret.short": (
        "密钥太短：至少 {least} 个字节",
        "the secret is too short: at least {least} bytes are expected",
    ),
    "prefix.secret.do": (
        "换一个更长的，或不给文件让程序生成",
        "take a longer one, or give no file to have one made",
    ),
    "prefix.key.long": (
        "{file} 超过 {most} 个字节",
        "{file} has more than {most} bytes",
    ),
    "prefix.key.do": (
        "给出 PEM 公钥或 Handle.Net 的 pubkey.bin",
        "give a public key as PEM, or pubkey.bin of Handle.Net",
    ),
    "application.added": ("已登记：{id} {name}", "added: {id} {name}"),
    "application.unchanged": (
        "已经登记过，没有变化：{id} {name}",
        "already there, unchanged: {id} {name}",
    ),
    "application.contract": (
        "{id} 的合同摘要：{digest}",
        "contract of {id}: {digest}",
    ),
    "key.created": (
        "密钥 {id} 只显示这一次，请妥善保存；遗失后请吊销并新建。",
        "key {id} is shown only this once: keep it safe; if it is lost, revoke it and create"
        " another",
    ),
    "key.revoked": ("密钥 {id} 已吊销", "key {id} is revoked"),
    "key.revoked.before": (
        "密钥 {id} 早已吊销，没有变化",
        "key {id} was already revoked, unchanged",
    ),
    "migrate.applied": ("已应用 {name}", "applied {name}"),
    "migrate.nothing": (
        "数据库结构已是最新（{number}）",
        "the schema is up to date ({number})",
    ),
    "register.dry_run": (
        "试运行：{rows} 行，错误 {failed}；没有登记任何标识",
        "dry run: {rows} rows, {failed} bad; nothing was registered",
    ),
    "register.progress": (
        "{rows} 行，错误 {failed}，每秒 {rate} 行",
        "{rows} rows, {failed} bad, {rate} rows/s",
    ),
    "register.left": ("，约剩 {seconds} 秒", ", about {seconds} s left"),
    "register.summary": (
        "{rows} 行：新增 {added}，更改 {changed}，未变 {unchanged}，错误 {failed}",
        "{rows} rows: {added} added, {changed} changed, {unchanged} unchanged, {failed} bad",
    ),
    "register.errors_file": ("错误的行见 {file}", "the bad rows are in {file}"),
    "resolve.no": ("未解析（{code}）：{reason}", "not resolved ({code}): {reason}"),
    "resolve.stale": (
        "（数据库不可用，显示的是最近已知的值）",
        "(stale: the registry is away, these are the last known values)",
    ),
    "export.done": ("已导出 {count} 个标识到 {file}", "{count} identifiers exported to {file}"),
    "measures.volume": ("日均解析量", "daily average of resolutions"),
    "measures.integrations": (
        "应用接入：区外 / 其他国家（地区）",
        "integrations: other provinces / other countries and regions",
    ),
    "measures.met": ("满足", "met"),
    "measures.not_met": ("未满足", "not met"),
    "measures.strictest": ("各项条件均按最严口径", "every condition by its strictest reading"),
    "measures.no_document_number": ("（文号未知）", "(document number not known)"),
    "measures.source": ("来源：{source}", "source: {source}"),
    "measures.pace": (
        "目前速度为 {first} 至 {last} 共 {days} 个完整日的日均值；无数据的日期按 0 计",
        "The present pace is the mean of the {days} complete days {first} to {last};"
        " a day without data is 0.",
    ),
    "measures.outlook": ("全部条件：{outlook}", "all conditions together: {outlook}"),
    "measures.outlooks": (
        "措施 {measure} 按目前速度、按各口径和统计窗口：",
        "Measure {measure} at the present pace, by every reading and window:",
    ),
    "measures.unmeasured": (
        "以下条件节点无法计量，须另行证明：",
        "Asked for besides, and nothing that a node can measure:",
    ),
    "measures.not_every_reading": (
        "并非所有口径都满足；全部口径见 --json",
        "not every reading says so; all of them are in --json",
    ),
    # the doctor's checks and advice
    "doctor.ok": ("正常", "ok"),
    "doctor.warn": ("注意", "warn"),
    "doctor.fail": ("故障", "fail"),
    "doctor.none": ("一切正常", "all is well"),
    "doctor.some": ("{count} 项需要处理", "{count} to look at"),
    "doctor.missing": ("{path} 不存在", "{path} does not exist"),
    "doctor.folder": ("数据目录", "data folder"),
    "doctor.folder.do": (
        "更改其所有者，或用 IDNODE_DATA 指定别的目录",
        "change its owner, or choose another folder with IDNODE_DATA",
    ),
    "doctor.free": ("{path}，剩余 {free} MB", "{path}, {free} MB free"),
    "doctor.free.do": ("清理磁盘或换用更大的磁盘", "free some room or use a larger disk"),
    "doctor.descriptors": ("打开文件数上限", "open files limit"),
    "doctor.descriptors.do": (
        "启动前执行 ulimit -n {wanted}，或在 systemd 中设置 LimitNOFILE",
        "run ulimit -n {wanted} before the start, or set LimitNOFILE in systemd",
    ),
    "doctor.key": ("运营者密钥文件", "operator key file"),
    "doctor.key.do": (
        "idnode up 会创建它；否则用 idnode key create --operator 创建",
        "idnode up makes it; otherwise idnode key create --operator",
    ),
    "doctor.key.readable.do": (
        "用节点的账户运行，或检查权限",
        "run this as the node's account, or check the rights",
    ),
    "doctor.key.form.do": (
        "内容不是 idn_… 形式的密钥：删除该文件并重新启动节点",
        "it does not hold a key idn_…: remove it and start the node again",
    ),
    "doctor.node_key": ("节点公钥", "public key of the node"),
    "doctor.policy": ("政策文件", "policy"),
    "doctor.policy.do": (
        "更正该文件，或取消 IDNODE_POLICY 以只使用内置政策",
        "correct the file, or unset IDNODE_POLICY to use the bundled ones alone",
    ),
    "doctor.node": ("节点", "node"),
    "doctor.node.configured": (
        "使用已配置的数据库，HTTP 为 {http}",
        "configured stores, HTTP at {http}",
    ),
    "doctor.postgres.do": (
        "检查数据库是否运行、地址与密码是否正确",
        "check that it runs, and the address and password in IDNODE_POSTGRES_URL",
    ),
    "doctor.postgres.version.do": (
        "升级到 PostgreSQL 15 以上",
        "upgrade to PostgreSQL 15 or later",
    ),
    "doctor.schema": ("数据库结构", "schema"),
    "doctor.commit.do": (
        "设为 on：否则断电会丢失已确认的写入",
        "set it to on: otherwise a power cut loses writes that were acknowledged",
    ),
    "doctor.connections.do": ("至少设为 {wanted}", "set it to {wanted} at least"),
    "doctor.clock": ("与数据库的时钟差", "clock difference to the database"),
    "doctor.clock.do": (
        "在两台机器上启用 NTP（chrony）",
        "run NTP (chrony) on both machines",
    ),
    "doctor.time_zone": ("时区数据", "time zone data"),
    "doctor.time_zone.do": (
        "在数据库服务器上安装 tzdata",
        "install tzdata on the database server",
    ),
    "doctor.damage": ("计数损坏的日期", "days with damaged counts"),
    "doctor.damage.do": (
        "这些日期不计入申报；查看 journals 目录与磁盘健康",
        "these days are not claimed; look at the journals folder and the disk's health",
    ),
    "doctor.redis.unknown": ("没有配置", "not configured"),
    "doctor.redis.unknown.do": (
        "设置 IDNODE_REDIS_URL；没有它节点直接从数据库解析",
        "set IDNODE_REDIS_URL; without it the node answers from PostgreSQL",
    ),
    "doctor.redis.do": (
        "检查它是否运行、地址与密码是否正确；没有它节点直接从数据库解析",
        "check that it runs, its address and password; without it the node answers from PostgreSQL",
    ),
    "doctor.redis.memory.do": (
        "设置 maxmemory，并把 maxmemory-policy 设为 volatile-lru",
        "set maxmemory, and maxmemory-policy to volatile-lru",
    ),
    "doctor.http.do": (
        "查看节点日志；节点未运行时用 idnode up 或 idnode serve 启动",
        "look at the node's log; if it does not run: idnode up, or idnode serve",
    ),
    # errors
    "error": ("错误", "error"),
    "error.do": ("怎么办", "what to do"),
    "error.no_node": ("{data} 上没有运行中的节点", "no node is running on {data}"),
    "error.no_node.do": (
        "用 `idnode up` 启动，或设置 IDNODE_POSTGRES_URL",
        "start it with `idnode up`, or set IDNODE_POSTGRES_URL",
    ),
    "error.node_answer": (
        "节点的回答无法使用（HTTP {status}）：{reason}",
        "the node's answer cannot be used (HTTP {status}): {reason}",
    ),
    "error.node_answer.do": (
        "检查运营者密钥文件，并运行 `idnode doctor`",
        "check the operator key file, and run `idnode doctor`",
    ),
    "error.interrupted": ("已中断", "interrupted"),
    "usage.contract": (
        "--contract 与 --contract-sha256 只能给一个",
        "give --contract or --contract-sha256, not both",
    ),
    "usage.prefix.admin": (
        "--secret-file 与 --public-key 只能给一个",
        "give --secret-file or --public-key, not both",
    ),
    "usage.prefix.node": (
        "--node 是 {node}：应为 主机:端口，例如 192.0.2.7:2641",
        "--node is {node}: expected host:port, such as 192.0.2.7:2641",
    ),
    "usage.key": (
        "--application、--enterprise、--operator 须给且只给一个",
        "give exactly one of --application, --enterprise, --operator",
    ),
    "usage.export": (
        "--json 输出到标准输出时格式须为 jsonl",
        "with --json on standard output the format must be jsonl",
    ),
}


def text(key: str, language: str, **values: object) -> str:
    """The text under `key` in `language` (`zh` or `en`), with `values` in their places."""
    chinese, english = TEXTS[key]
    template = chinese if language == "zh" else english
    return template.format(**values) if values else template
