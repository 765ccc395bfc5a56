import SluiceTesting

/// A row of a mirror.
struct MirrorRow: Hashable, Sendable, CustomStringConvertible {
    let table: String
    let key: String
    /// The member whose row it is, in a table with a row a member.
    let member: String?

    init(_ table: String, _ key: String, _ member: String? = nil) {
        self.table = table
        self.key = key
        self.member = member
    }

    var description: String { "\(table) \(key) \(member ?? "")" }
}

/// What a key holds.
enum MirrorValue: Equatable, Sendable {
    case string(String)
    case list([String])
    /// Fields and their values, or members and their scores.
    case members([String: String])

    subscript(member: String) -> String? {
        get { if case .members(let members) = self { members[member] } else { nil } }
        set {
            guard case .members(var members) = self else { return }
            members[member] = newValue
            self = .members(members)
        }
    }
}

/// What a client has done to a mirrored database.
struct MirrorAccount: Sendable {
    /// The keys that there are.
    private(set) var live: [String: (table: String, value: MirrorValue)] = [:]
    /// The rows that must be there: those of the keys, and of keys that expired.
    private(set) var due: [MirrorRow: MirrorValue] = [:]
    /// What was done, by key.
    private(set) var history: [String: [String]] = [:]

    /// What a key holds now; of the members that were there, none has gone.
    mutating func set(_ key: String, in table: String, to value: MirrorValue) {
        if let old = live[key], old.table != table { remove(key) }
        live[key] = (table, value)
        guard case .members(let members) = value, table != "hashes" else {
            return due[MirrorRow(table, key)] = value
        }
        for (member, score) in members { due[MirrorRow(table, key, member)] = .string(score) }
    }

    /// The rows of members that outlived an earlier key of the name go with those of this one.
    mutating func remove(_ key: String) {
        guard let old = live.removeValue(forKey: key) else { return }
        clear(key, in: old.table)
    }

    /// A key is stored as a whole: no other member of the name stays.
    mutating func replace(_ key: String, in table: String, with value: MirrorValue) {
        remove(key)
        clear(key, in: table)
        set(key, in: table, to: value)
    }

    private mutating func clear(_ key: String, in table: String) {
        due = due.filter { $0.key.table != table || $0.key.key != key }
    }

    mutating func expire(_ key: String) {
        live[key] = nil
        note("expired", for: key)
    }

    mutating func note(_ command: String, for key: String) {
        history[key, default: []].append(command)
    }
}

/// Changes keys at random, and keeps account of the rows that must be there.
final class MirrorClient: @unchecked Sendable {
    // Unchecked: a test reads the account when the client is done.
    private(set) var account = MirrorAccount()
    /// Whether what a key holds is given to others.
    var copies = true
    private let client: RedisClient
    private var random: SplitMix64
    private let settle: @Sendable () throws -> Void
    private var number = 0
    private static let tables = ["strings", "hashes", "lists", "sets", "sorted_sets"]

    /// - Parameter settle: Called before some keys expire, and after they did.
    init(
        _ client: RedisClient, seed: UInt64, settle: @escaping @Sendable () throws -> Void,
    ) {
        self.settle = settle
        self.client = client
        random = SplitMix64(seed: seed)
    }

    /// Sends bursts of commands; after each, some keys expire.
    func run(bursts: Int) async throws {
        for _ in 0..<bursts {
            for _ in 0..<random.pick(1..<60) { try await step() }
            try await expire()
        }
    }

    private func step() async throws {
        let key = name()
        switch random.pick(0..<100) {
        case 0..<50:
            try await write(key, in: account.live[key]?.table ?? anyTable())
        case 50..<60:
            // Over whatever is there.
            try await write(key, in: "strings")
        case 60..<68:
            try await removal([random.oneIn(2) ? "DEL" : "UNLINK", key], of: key)
        case 68..<76 where copies:
            try await copy(key) { ["RENAME", key, $0] }
        case 76..<82 where copies:
            try await copy(key) { ["COPY", key, $0, "REPLACE"] }
        case 82..<88:
            let table = anyTable()
            account.remove(key)
            try await write(key, in: table, after: [["DEL", key]])
        case 88..<92 where copies:
            try await copy(key, of: "sets") { ["SUNIONSTORE", $0, key] }
        case 92..<96 where copies:
            try await copy(key, of: "sorted_sets") { ["ZRANGESTORE", $0, key, "0", "-1"] }
        case 96 where account.live[key]?.table == "lists":
            try await removal(["LTRIM", key, "1", "0"], of: key)
        case 97... where copies:
            let script =
                "return redis.call('RESTORE', KEYS[2], 0, redis.call('DUMP', KEYS[1]), 'REPLACE')"
            try await copy(key) { ["EVAL", script, "2", key, $0] }
        default: break
        }
    }

    private func name() -> String { "k\(random.pick(0..<60))" }
    private func anyTable() -> String { Self.tables[random.pick(0..<Self.tables.count)] }

    private func write(
        _ key: String, in table: String, after removal: [[String]] = [],
    ) async throws {
        number += 1
        let text = "\(number)"
        let member = ["a", "b", "c", "d"][random.pick(0..<4)]
        let (command, value) = change(of: key, in: table, member: member, text: text)
        let commands = removal.isEmpty ? [command] : [["MULTI"]] + removal + [command, ["EXEC"]]
        try await send(commands)
        account.set(key, in: table, to: value)
        account.note(commands.map { $0.joined(separator: " ") }.joined(separator: ", "), for: key)
    }

    // A command, and what the key holds after it.
    private func change(
        of key: String, in table: String, member: String, text: String,
    ) -> ([String], MirrorValue) {
        let old = account.live[key].flatMap { $0.table == table ? $0.value : nil }
        var members = old ?? .members([:])
        switch table {
        case "strings": return (["SET", key, text], .string(text))
        case "lists":
            let items = if case .list(let items) = old { items } else { [String]() }
            return (["RPUSH", key, text], .list(items + [text]))
        case "hashes":
            members[member] = text
            return (["HSET", key, member, text], members)
        case "sets":
            members[member] = "0"
            return (["SADD", key, member], members)
        default:
            members[member] = text
            return (["ZADD", key, text, member], members)
        }
    }

    private func removal(_ command: [String], of key: String) async throws {
        try await send([command])
        account.remove(key)
        account.note(command.joined(separator: " "), for: key)
    }

    // Gives what a key holds to another.
    private func copy(
        _ key: String, of table: String? = nil, _ command: (String) -> [String],
    ) async throws {
        let other = name()
        guard let held = account.live[key], other != key, held.table == table ?? held.table else {
            return
        }
        let words = command(other)
        try await send([words])
        if words[0] == "RENAME" { account.remove(key) }
        account.replace(other, in: held.table, with: held.value)
        let note = words[0] == "EVAL" ? "RESTORE \(key) \(other)" : words.joined(separator: " ")
        for name in [key, other] { account.note(note, for: name) }
    }

    private func expire() async throws {
        let keys = account.live.keys.sorted().filter { _ in random.oneIn(8) }
        guard !keys.isEmpty else { return }
        // Else it may be in doubt which removal of a key was its expiry.
        try settle()
        try await send(keys.map { ["PEXPIRE", $0, "20"] })
        // By themselves, or when somebody looks.
        try await Task.sleep(for: .milliseconds(random.oneIn(8) ? 150 : 21))
        while try await client.send(["EXISTS"] + keys) != ["0"] {
            try await Task.sleep(for: .milliseconds(2))
        }
        for key in keys { account.expire(key) }
        try settle()
    }

    private func send(_ commands: [[String]]) async throws {
        let done = try await client.sendAll(commands)
        guard done == commands.count else { throw UnexpectedReply(commands: commands) }
    }

    struct UnexpectedReply: Error {
        let commands: [[String]]
    }
}
