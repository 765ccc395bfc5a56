public import SluiceCore

/// Random commands on a small key space, applied to a ``ModelRedis``.
public struct ModelTraffic {
    private var entries = 0

    /// Creates traffic.
    public init() {}

    /// The tables that the traffic's keys belong to.
    public static let mappings: [TableMapping] = [
        TableMapping(
            name: "counters", keys: pattern("c:", "id"), type: .string,
            columns: [Column(name: "value", type: .integer)], deadline: "expires_at",
        ),
        TableMapping(
            name: "texts", keys: pattern("t:", "id"), type: .string,
            columns: [Column(name: "value", type: .text)], removal: .always(.delete),
        ),
        hashes("sessions", "h:"), scores("scores", "z:"),
        TableMapping(
            name: "tags", keys: pattern("s:", "id"), type: .set,
            member: Column(name: "tag", type: .text), removal: .always(.delete),
        ),
        TableMapping(
            name: "events", keys: pattern("x:", "id"), type: .stream,
            member: Column(name: "event", type: .text), rest: "payload",
        ),
        TableMapping(
            name: "counters_of_another_database", keys: pattern("c:", "id"), type: .string,
            database: 1, columns: [Column(name: "value", type: .integer)], deadline: "expires_at",
        ),
        TableMapping(
            name: "tags_of_another_database", keys: pattern("s:", "id"), type: .set, database: 1,
            member: Column(name: "tag", type: .text),
        ),
        // Three that share their names.
        TableMapping(
            name: "shared_texts", keys: pattern("y:", "id"), type: .string,
            columns: [Column(name: "value", type: .text)],
        ),
        hashes("shared_hashes", "y:"), scores("shared_scores", "y:"),
    ]

    private static func hashes(_ name: String, _ prefix: String) -> TableMapping {
        TableMapping(
            name: name, keys: pattern(prefix, "id"), type: .hash,
            fields: [Array("n".utf8), Array("name".utf8)],
            columns: [Column(name: "n", type: .integer), Column(name: "name", type: .text)],
            rest: "rest", deadline: "expires_at",
        )
    }

    private static func scores(_ name: String, _ prefix: String) -> TableMapping {
        TableMapping(
            name: name, keys: pattern(prefix, "id"), type: .sortedSet,
            columns: [Column(name: "score", type: .real)],
            member: Column(name: "member", type: .text),
        )
    }

    private static func pattern(_ prefix: String, _ name: String) -> KeyPattern {
        KeyPattern(segments: [
            .literal(Array(prefix.utf8)), .placeholder(Column(name: name, type: .text)),
        ])
    }

    /// What a server would say of the commands that the interpreter does not know.
    ///
    /// - Parameter saysTypes: Whether it says of what type their keys are.
    public static func descriptions(saysTypes: Bool) -> [CommandDescription] {
        let commands: [(String, RedisType, keys: [Int], isOverwrite: Bool)] = [
            ("append", .string, [1], false), ("zrangestore", .sortedSet, [1], true),
            ("smove", .set, [1, 2], false), ("zpopmin", .sortedSet, [1], false),
        ]
        return commands.map { name, type, keys, isOverwrite in
            CommandDescription(
                name: Array(name.utf8), isWrite: true, type: saysTypes ? type : nil,
                keys: keys.map {
                    KeySpecification(
                        begin: .index($0), find: .range(last: 0, step: 1, limit: 0), isWrite: true,
                        isOverwrite: isOverwrite, isIncomplete: false,
                    )
                },
            )
        }
    }

    /// Runs one command or transaction, and propagates what it did.
    public mutating func run(on redis: inout ModelRedis, random: inout SplitMix64) {
        let database = random.oneIn(8) ? 1 : 0
        let count = random.oneIn(4) ? random.pick(2..<5) : 1
        var effects: [[String]] = []
        for _ in 0..<count {
            effects += command(on: &redis.databases[database], random: &random)
            redis.databases[database].noteReturns()
        }
        if !effects.isEmpty { redis.propagate(effects, database: database) }
    }

    private mutating func command(
        on keys: inout ModelRedis.Keyspace, random: inout SplitMix64,
    ) -> [[String]] {
        switch random.pick(0..<48) {
        case 0..<8: counter(&keys, &random)
        case 8..<12: text("t:\(random.pick(0..<3))", &keys, &random)
        case 12..<20: hash("h:\(random.pick(0..<3))", &keys, &random)
        case 20..<28: sortedSet("z:\(random.pick(0..<3))", &keys, &random)
        case 28..<31: set(&keys, &random)
        case 31..<34: stream(&keys, &random)
        case 34..<40: shared("y:\(random.pick(0..<3))", &keys, &random)
        default: anyKey(&keys, &random)
        }
    }

    private func shared(
        _ key: String, _ keys: inout ModelRedis.Keyspace, _ random: inout SplitMix64,
    ) -> [[String]] {
        if random.oneIn(5), keys.values[key] != nil {
            keys.deadlines[key] = 3_000_000_000_000
            return [["PEXPIREAT", key, "3000000000000"]]
        }
        return switch random.pick(0..<3) {
        case 0: text(key, &keys, &random)
        case 1: hash(key, &keys, &random)
        default: sortedSet(key, &keys, &random)
        }
    }

    private func counter(
        _ keys: inout ModelRedis.Keyspace, _ random: inout SplitMix64,
    ) -> [[String]] {
        let key = "c:\(random.pick(0..<4))"
        let old = keys.values[key]
        if random.oneIn(6) {
            keys.deadlines[key] = nil
            keys.totals[key] = nil
            let value = random.oneIn(5) ? "word" : "\(random.pick(-9..<9))"
            keys.values[key] = .string(value)
            guard random.oneIn(2) else { return [["SET", key, value]] }
            keys.deadlines[key] = 2_000_000_000_000
            return [["SET", key, value, "PXAT", "2000000000000"]]
        }
        let delta = random.pick(-5..<9)
        guard case .string(let text) = old ?? .string("0"), let number = Int(text) else {
            return []
        }
        keys.values[key] = .string("\(number + delta)")
        return [delta == 1 ? ["incr", key] : ["INCRBY", key, "\(delta)"]]
    }

    private func text(
        _ key: String, _ keys: inout ModelRedis.Keyspace, _ random: inout SplitMix64,
    ) -> [[String]] {
        guard case .string(let old) = keys.values[key] ?? .string("") else { return [] }
        if random.oneIn(2) {
            keys.values[key] = .string(old + "+")
            return [["APPEND", key, "+"]]
        }
        keys.values[key] = .string("v\(random.pick(0..<99))")
        keys.deadlines[key] = nil
        guard case .string(let new)? = keys.values[key] else { return [] }
        return [["SET", key, new]]
    }

    private func hash(
        _ key: String, _ keys: inout ModelRedis.Keyspace, _ random: inout SplitMix64,
    ) -> [[String]] {
        guard case .hash(var fields) = keys.values[key] ?? .hash([:]) else { return [] }
        defer {
            keys.values[key] = fields.isEmpty ? nil : .hash(fields)
            if fields.isEmpty { keys.deadlines[key] = nil }
        }
        let field = ["n", "name", "other", "more"][random.pick(0..<4)]
        switch random.pick(0..<5) {
        case 0:
            guard fields.removeValue(forKey: field) != nil else { return [] }
            keys.noteHash(key, isAdd: false, setsNumber: field == "n")
            if fields.isEmpty { keys.endSum(key) }
            return [["HDEL", key, field]]
        case 1:
            guard let number = Int(fields["n"] ?? "0") else { return [] }
            fields["n"] = "\(number + 3)"
            keys.noteHash(key, isAdd: true)
            return [["HINCRBY", key, "n", "3"]]
        default:
            let value =
                field == "n" && !random.oneIn(8)
                ? "\(random.pick(0..<50))" : "w\(random.pick(0..<9))"
            fields[field] = value
            keys.noteHash(key, isAdd: false, setsNumber: field == "n")
            return [["HSET", key, field, value]]
        }
    }

    private func sortedSet(
        _ key: String, _ keys: inout ModelRedis.Keyspace, _ random: inout SplitMix64,
    ) -> [[String]] {
        guard case .sortedSet(var scores) = keys.values[key] ?? .sortedSet([:]) else { return [] }
        defer {
            keys.values[key] = scores.isEmpty ? nil : .sortedSet(scores)
            if scores.isEmpty { keys.deadlines[key] = nil }
        }
        let member = "m\(random.pick(0..<5))"
        let score = Double(random.pick(0..<100)) / 10
        switch random.pick(0..<7) {
        case 6:
            guard let lowest = scores.min(by: { ($0.value, $0.key) < ($1.value, $1.key) })
            else { return [] }
            scores[lowest.key] = nil
            keys.noteScore(key, lowest.key, isAdd: false)
            return [["ZPOPMIN", key]]
        case 0:
            guard scores.removeValue(forKey: member) != nil else { return [] }
            keys.noteScore(key, member, isAdd: false)
            return [["ZREM", key, member]]
        case 1:
            guard scores[member].map({ $0 < score }) ?? true else { return [] }
            scores[member] = score
            keys.noteScore(key, member, isAdd: false, isSaid: false)
            return [["ZADD", key, "GT", "\(score)", member]]
        case 2, 3:
            scores[member] = (scores[member] ?? 0) + score
            keys.noteScore(key, member, isAdd: true)
            return [["ZINCRBY", key, "\(score)", member]]
        default:
            guard scores[member] != score else { return [] }
            scores[member] = score
            keys.noteScore(key, member, isAdd: false)
            return [["ZADD", key, "\(score)", member]]
        }
    }

    private func set(_ keys: inout ModelRedis.Keyspace, _ random: inout SplitMix64) -> [[String]] {
        let key = "s:\(random.pick(0..<2))"
        let other = "s:\(random.pick(2..<4))"
        guard case .set(var members) = keys.values[key] ?? .set([]),
            case .set(var others) = keys.values[other] ?? .set([])
        else { return [] }
        defer {
            keys.values[key] = members.isEmpty ? nil : .set(members)
            keys.values[other] = others.isEmpty ? nil : .set(others)
            if members.isEmpty { keys.deadlines[key] = nil }
        }
        let member = "m\(random.pick(0..<4))"
        if random.oneIn(3) {
            guard members.remove(member) != nil else { return [] }
            if random.oneIn(2) { return [["SREM", key, member]] }
            others.insert(member)
            return [["SMOVE", key, other, member]]
        }
        guard members.insert(member).inserted else { return [] }
        return [["SADD", key, member]]
    }

    private mutating func stream(
        _ keys: inout ModelRedis.Keyspace, _ random: inout SplitMix64,
    ) -> [[String]] {
        let key = "x:\(random.pick(0..<2))"
        guard case .stream(var log) = keys.values[key] ?? .stream([:]) else { return [] }
        entries += 1
        let id = "\(entries)-0"
        log[id] = "e\(entries)"
        keys.values[key] = .stream(log)
        return [["XADD", key, id, "f", "e\(entries)"]]
    }

    private func anyKey(
        _ keys: inout ModelRedis.Keyspace, _ random: inout SplitMix64,
    ) -> [[String]] {
        let key = keys.values.keys.sorted().randomElement(using: &random) ?? "c:0"
        guard let value = keys.values[key] else { return [] }
        switch random.pick(0..<9) {
        case 0:
            // Twice in one transaction would be two causes at one place: the model has one.
            guard keys.removed[key] == nil else { return [] }
            keys.remove(key, random.oneIn(2) ? .expired : .evicted)
            return [["DEL", key]]
        case 1, 2:
            guard keys.removed[key] == nil else { return [] }
            keys.values[key] = nil
            keys.deadlines[key] = nil
            keys.totals[key] = nil
            keys.takeAlong(key, value.type)
            return [[random.oneIn(2) ? "DEL" : "unlink", key]]
        case 3:
            keys.deadlines[key] = 3_000_000_000_000
            return [["PEXPIREAT", key, "3000000000000"]]
        case 4:
            guard keys.deadlines.removeValue(forKey: key) != nil else { return [] }
            return [["PERSIST", key]]
        case 5:
            let target = String(key.prefix(2)) + "\(random.pick(0..<4))"
            guard target != key else { return [] }
            keys.values[key] = nil
            keys.values[target] = value
            keys.totals[key] = nil
            keys.totals[target] = nil
            keys.takeAlong(key, value.type)
            keys.takeAlong(target, nil)
            keys.deadlines[target] = keys.deadlines.removeValue(forKey: key)
            return [["RENAME", key, target]]
        case 6:
            // A string over a value of another type, which its table can't take.
            keys.totals[key] = nil
            keys.takeAlong(key, value.type)
            keys.values[key] = .string("7")
            keys.deadlines[key] = nil
            return [["SET", key, "7"]]
        case 7:
            guard case .sortedSet(let scores) = value else { return [] }
            let target = random.oneIn(2) ? "z:9" : "y:1"
            keys.values[target] = .sortedSet(scores)
            keys.deadlines[target] = nil
            keys.takeAlong(target, nil)
            return [["ZRANGESTORE", target, key, "0", "-1"]]
        default:
            guard random.oneIn(12) else { return [] }
            guard keys.removed.isEmpty else { return [] }
            keys.flush()
            return [["FLUSHDB"]]
        }
    }
}
