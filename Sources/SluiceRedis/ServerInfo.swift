internal import RESPWire
public import SluiceCore

/// What a server says of itself in INFO.
public struct ServerInfo: Hashable, Sendable {
    private let fields: [String: String]

    /// Reads the text of INFO.
    public init(_ text: String) {
        var fields: [String: String] = [:]
        for line in text.split(whereSeparator: \.isNewline) {
            guard let colon = line.firstIndex(of: ":") else { continue }
            fields[String(line[..<colon])] = String(line[line.index(after: colon)...])
        }
        self.fields = fields
    }

    /// A field as it stands there.
    public subscript(_ name: String) -> String? { fields[name] }

    /// Whether the server is a master.
    public var isMaster: Bool { fields["role"] == "master" }
    /// Whether the server says that it is a replica; one behind a proxy may say nothing.
    public var isReplica: Bool { fields["role"] == "slave" }
    /// The name of the present run of the server, which changes when it restarts.
    public var runID: String? { fields["run_id"] }
    /// The present history.
    public var history: ReplicationID? { fields["master_replid"].map { ReplicationID($0) } }
    /// The present offset, in bytes of the stream.
    public var offset: Int64? { fields["master_repl_offset"].flatMap(Int64.init) }
    /// How many replicas are attached, this one included.
    public var replicaCount: Int { fields["connected_slaves"].flatMap(Int.init) ?? 0 }
    /// Whether the server is Valkey.
    public var isValkey: Bool {
        fields["server_name"] == "valkey" || fields["valkey_version"] != nil
    }
    /// The version as the server's own project counts it.
    public var version: String { fields["valkey_version"] ?? fields["redis_version"] ?? "unknown" }
    /// The name and version.
    public var name: String { "\(isValkey ? "Valkey" : "Redis") \(version)" }

    /// How many keys a database has.
    public func keyCount(_ database: Int) -> Int {
        let counts = (fields["db\(database)"] ?? "").split(separator: ",").first ?? ""
        return Int(counts.drop { $0 != "=" }.dropFirst()) ?? 0
    }

    /// Whether fields of hashes can have deadlines: from Redis 7.4 and Valkey 9.
    public var knowsFieldDeadlines: Bool {
        let parts = version.split(separator: ".").compactMap { Int($0) }
        guard parts.count >= 2 else { return true }
        return isValkey ? parts[0] >= 9 : (parts[0], parts[1]) >= (7, 4)
    }

    /// Whether a database has hashes of which a field has a deadline.
    public func hasFieldDeadlines(_ database: Int) -> Bool {
        (fields["db\(database)"] ?? "").split(separator: ",").contains { part in
            let pair = part.split(separator: "=")
            guard pair.count == 2 else { return false }
            return ["subexpiry", "keys_with_volatile_items"].contains(pair[0]) && pair[1] != "0"
        }
    }

    /// Whether any database has hashes of which a field has a deadline.
    public var hasAnyFieldDeadlines: Bool {
        fields.keys.contains { name in
            name.hasPrefix("db") && Int(name.dropFirst(2)).map(hasFieldDeadlines) == true
        }
    }

    /// Whether the server is older than 7.0.
    public var isOld: Bool { major < 7 }

    /// How often settings were changed, and the counts themselves reset, as `commandstats` says.
    var settingChanges: [String?] {
        ["cmdstat_config|set", "cmdstat_config|resetstat"].map { name in
            fields[name].flatMap { $0.split(separator: ",").first.map(String.init) }
        }
    }

    /// How often all keys of a database were removed or exchanged at once, as `commandstats` says.
    var flushes: [String?] {
        ["cmdstat_flushall", "cmdstat_flushdb", "cmdstat_swapdb"].map { name in
            fields[name].flatMap { $0.split(separator: ",").first.map(String.init) }
        }
    }

    /// Whether a command was used that gives fields of hashes deadlines, as `commandstats` says.
    var hasUsedFieldDeadlines: Bool {
        ["hexpire", "hpexpire", "hexpireat", "hpexpireat", "hsetex", "hgetex", "restore"].contains {
            fields["cmdstat_" + $0] != nil
        }
    }

    /// How many bytes clients have sent since the server started.
    package var inputBytes: Int64 { fields["total_net_input_bytes"].flatMap { Int64($0) } ?? 0 }

    /// Whether the offset counts the bytes of the stream: before a replica was ever attached it stays,
    /// or grows by one with each write (Valkey 9.1).
    package var countsBytes: Bool { fields["repl_backlog_active"] == "1" }

    /// The first number of the version.
    package var major: Int { Int(version.prefix { $0 != "." }) ?? 0 }

    /// Whether the server knows `REPLCONF ACK … FACK …`, which is what WAITAOF counts.
    public var hasFACK: Bool {
        isValkey || isAtLeast(7, 2)
    }

    private func isAtLeast(_ major: Int, _ minor: Int) -> Bool {
        let parts = version.split(separator: ".").compactMap { Int($0) }
        return parts.count >= 2 && (parts[0], parts[1]) >= (major, minor)
    }

    /// Why the server might lose the marks of what changed, or nil.
    public var markEvictionRefusal: RedisError? {
        guard let policy = fields["maxmemory_policy"], policy.hasPrefix("allkeys") else {
            return nil
        }
        return RedisError(
            .halt, "maxmemory-policy is \(policy), so Redis may evict the marks of what changed",
            hint: "CONFIG SET maxmemory-policy noeviction, or one of volatile-*")
    }

    /// Why the server can't be followed, or nil when it can.
    public func refusal(_ capture: Capture = .replication) -> RedisError? {
        if capture.isExact ? !isMaster : isReplica {
            return RedisError(
                .halt, "the server is a replica",
                hint: "follow its master \(fields["master_host"] ?? ""):"
                    + "\(fields["master_port"] ?? "")",
            )
        }
        if fields["cluster_enabled"] == "1" {
            return RedisError(
                .halt, "the server is a node of a cluster, which is not supported yet",
                hint: "use a server without cluster-enabled",
            )
        }
        if !capture.isExact {
            return isAtLeast(6, 2)
                ? nil : RedisError(.halt, "\(name) is too old", hint: "use Redis 6.2 or later")
        }
        if major < 7 {
            return RedisError(
                .halt, "\(name) is too old to be followed by replication",
                hint: "use Redis 7.0 or later, or Valkey; or redis.capture: dirty-set",
            )
        }
        return nil
    }
}

/// Reads the reply of COMMAND.
enum CommandDescriptions {
    static func parse(_ reply: RESPValue) -> [CommandDescription] {
        (reply.elements ?? []).compactMap(command)
    }

    // Source: the documentation of COMMAND; key specifications are the ninth element since 7.0.
    private static func command(_ value: RESPValue) -> CommandDescription? {
        guard let parts = value.elements, parts.count >= 9, let name = parts[0].bytes else {
            return nil
        }
        let flags = (parts[2].elements ?? []).compactMap(\.text)
        // Redis 7.0 flags SINTERSTORE as if it only changed a set that is there.
        let isStore = name.suffix(5).map { $0 | 0x20 } == Array("store".utf8)
        var keys = (parts[8].elements ?? []).compactMap { specification($0, isStore: isStore) }
        let isModule = flags.contains("module")
        // Subcommands, such as those of XGROUP, have the keys of their family.
        for subcommand in parts.count > 9 ? parts[9].elements ?? [] : [] {
            keys += command(subcommand)?.keys ?? []
        }
        let subcommandsWrite = (parts.count > 9 ? parts[9].elements ?? [] : [])
            .contains { command($0)?.isWrite ?? false }
        return CommandDescription(
            name: name.map { $0 | ($0 >= 0x41 && $0 <= 0x5A ? 0x20 : 0) },
            isWrite: flags.contains("write") || subcommandsWrite,
            type: isModule ? nil : type((parts[6].elements ?? []).compactMap(\.text)),
            keys: keys,
        )
    }

    // Source: the page "ACL" of the Redis documentation. SORT is of several categories, and what has to
    // do with keys of any type is of none of these.
    private static func type(_ categories: [String]) -> RedisType? {
        let types = Set(
            categories.compactMap { category -> RedisType? in
                switch category {
                case "@string", "@bitmap", "@hyperloglog": .string
                case "@hash": .hash
                case "@list": .list
                case "@set": .set
                case "@sortedset", "@geo": .sortedSet
                case "@stream": .stream
                default: nil
                }
            })
        return types.count == 1 ? types.first : nil
    }

    private static func specification(_ value: RESPValue, isStore: Bool) -> KeySpecification? {
        let fields = dictionary(value)
        let flags = (fields["flags"]?.elements ?? []).compactMap(\.text)
        return KeySpecification(
            begin: begin(dictionary(fields["begin_search"] ?? .null)),
            find: find(dictionary(fields["find_keys"] ?? .null)),
            isWrite: !flags.contains("RO") && !flags.contains("not_key"),
            isOverwrite: flags.contains("OW") || isStore,
            isIncomplete: flags.contains("incomplete"),
        )
    }

    private static func begin(_ fields: [String: RESPValue]) -> KeySpecification.Begin {
        let spec = dictionary(fields["spec"] ?? .null)
        switch fields["type"]?.text {
        case "index": return .index(Int(spec["index"]?.integer ?? 1))
        case "keyword":
            return .keyword(
                spec["keyword"]?.bytes ?? [], from: Int(spec["startfrom"]?.integer ?? 1)
            )
        default: return .unknown
        }
    }

    private static func find(_ fields: [String: RESPValue]) -> KeySpecification.Find {
        let spec = dictionary(fields["spec"] ?? .null)
        func number(_ name: String) -> Int { Int(spec[name]?.integer ?? 0) }
        switch fields["type"]?.text {
        case "range":
            return .range(
                last: number("lastkey"), step: number("keystep"), limit: number("limit"))
        case "keynum":
            return .count(
                at: number("keynumidx"), first: number("firstkey"), step: number("keystep"))
        default: return .unknown
        }
    }

    private static func dictionary(_ value: RESPValue) -> [String: RESPValue] {
        let elements = value.elements ?? []
        var fields: [String: RESPValue] = [:]
        for index in stride(from: 0, to: elements.count - 1, by: 2) {
            fields[elements[index].text ?? ""] = elements[index + 1]
        }
        return fields
    }
}
