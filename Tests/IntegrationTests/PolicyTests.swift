import Foundation
import SluiceTesting
import Testing

/// What becomes of rows whose keys go, for each type, cause and policy.
@Suite("Policies of removal", .serialized)
struct PolicyTests {
    /// Why keys go; the name of the key says it.
    private static let causes = ["deleted", "expired", "evicted", "flushed"]

    /// Policies of a table by cause, under a name.
    private static let policies: [(name: String, of: [String: String])] =
        ["keep", "delete", "mark"].map { policy in
            (policy, Dictionary(uniqueKeysWithValues: causes.map { ($0, policy) }))
        } + [
            (
                "mixed",
                ["deleted": "keep", "expired": "delete", "evicted": "mark", "flushed": "delete"]
            )
        ]

    /// A kind of table: how it is filled, how it comes back, and its rows after each.
    private struct Kind {
        let name: String
        let mapping: String
        let query: String
        let fill: [String]
        let comeBack: [String]
        /// Rows of the filled key, and of one that came back after its rows were deleted.
        let filled: [String]
        let afresh: [String]
        /// Rows when it came back after they were kept, and after they were marked.
        let onTop: [String]
        var unmarked: [String]?
    }

    private static let kinds = [
        Kind(
            name: "counters", mapping: "string: { value: integer }", query: "value",
            fill: ["SET", "10"], comeBack: ["INCRBY", "5"],
            filled: ["10"], afresh: ["5"], onTop: ["15"]),
        Kind(
            name: "texts", mapping: "string: { value: text }", query: "value",
            fill: ["SET", "t"], comeBack: ["SET", "u"],
            filled: ["t"], afresh: ["u"], onTop: ["u"]),
        Kind(
            name: "users", mapping: "hash: { visits: integer, name: text }",
            query: "visits || ' ' || coalesce(name, '-')",
            fill: ["HSET", "visits", "3", "name", "n"], comeBack: ["HINCRBY", "visits", "2"],
            filled: ["3 n"], afresh: ["2 -"], onTop: ["5 -"]),
        Kind(
            name: "profiles", mapping: "hash: { city: text, name: text }",
            query: "city || ' ' || coalesce(name, '-')",
            fill: ["HSET", "city", "c", "name", "n"], comeBack: ["HSET", "city", "d"],
            filled: ["c n"], afresh: ["d -"], onTop: ["d -"]),
        Kind(
            name: "scores", mapping: "sorted_set: { member: member, score: points }",
            query: "member || ' ' || CAST(points AS INTEGER)",
            fill: ["ZADD", "10", "m"], comeBack: ["ZINCRBY", "5", "m"],
            filled: ["m 10"], afresh: ["m 5"], onTop: ["m 15"]),
        Kind(
            name: "tags", mapping: "set: { member: member }", query: "member",
            fill: ["SADD", "m"], comeBack: ["SADD", "n"],
            filled: ["m"], afresh: ["n"], onTop: ["m", "n"], unmarked: ["m marked", "n"]),
        Kind(
            name: "queues", mapping: "list: { items: json }", query: "items",
            fill: ["RPUSH", "x"], comeBack: ["RPUSH", "y"],
            filled: ["[\"x\"]"], afresh: ["[\"y\"]"], onTop: ["[\"y\"]"]),
    ]

    private static func key(_ kind: Kind, _ policy: String, _ cause: String) -> String {
        "\(kind.name)-\(policy):\(cause)"
    }

    private static func tables() -> String {
        var yaml = "tables:\n"
        for kind in kinds {
            for policy in policies {
                yaml +=
                    "  \(kind.name)_\(policy.name):\n    keys: \"\(kind.name)-\(policy.name):<id>\"\n"
                yaml += "    \(kind.mapping)\n"
                for (cause, setting) in zip(
                    causes, ["on_delete", "on_expire", "on_evict", "on_flush"])
                {
                    let choice = policy.of[cause] ?? ""
                    yaml += "    \(setting): \(choice == "mark" ? "{ mark: gone_at }" : choice)\n"
                }
            }
        }
        return yaml
    }

    /// A server and a database.
    struct Setting: CustomTestStringConvertible, Sendable {
        let server: ServerKind
        let database: DatabaseKind
        var testDescription: String { "\(server), \(database.rawValue)" }

        static let all = ServerKind.supported.flatMap { server in
            DatabaseKind.allCases.map { Setting(server: server, database: $0) }
        }
    }

    @Test(
        "each policy holds for each cause, type and server, and when the key comes back",
        arguments: Setting.all)
    func policies(setting: Setting) async throws {
        let bench = try await Bench(
            setting.database, tables: Self.tables(),
            redisOptions: ["--maxmemory-policy", "volatile-ttl"], server: setting.server)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await Self.send(client, \.fill, Self.causes)
        try bench.flush()
        try Self.expect(bench, Self.causes, "filled") { kind, _ in kind.filled }

        try await Self.remove(bench, client)
        let gone = Self.causes.filter { $0 != "flushed" }
        try Self.expect(bench, gone, "gone") { kind, policy in Self.left(kind.filled, policy) }
        try await Self.send(client, \.comeBack, gone)
        try bench.flush()
        func back(_ kind: Kind, _ policy: String) -> [String] {
            switch policy {
            case "keep": kind.onTop
            case "mark": kind.unmarked ?? kind.afresh
            default: kind.afresh
            }
        }
        try Self.expect(bench, gone, "back", back)

        try await client.send("FLUSHALL")
        try bench.flush()
        try Self.expect(bench, ["flushed"], "flushed") { kind, policy in
            Self.left(kind.filled, policy)
        }
        try await Self.send(client, \.comeBack, ["flushed"])
        try bench.flush()
        try Self.expect(bench, ["flushed"], "back after a flush", back)
        #expect(try bench.deadLetters().isEmpty)
    }

    private static func left(_ rows: [String], _ policy: String) -> [String] {
        switch policy {
        case "delete": []
        case "mark": rows.map { $0 + " marked" }
        default: rows
        }
    }

    private static func send(
        _ client: RedisClient, _ command: (Kind) -> [String], _ causes: [String],
    ) async throws {
        for kind in kinds {
            let words = command(kind)
            try await client.sendAll(
                policies.flatMap { policy in
                    causes.map { [words[0], key(kind, policy.name, $0)] + words.dropFirst() }
                })
        }
    }

    // Has the keys evicted, expire and deleted whose names say so.
    private static func remove(_ bench: Bench, _ client: RedisClient) async throws {
        func keys(_ cause: String) -> [String] {
            kinds.flatMap { kind in policies.map { key(kind, $0.name, cause) } }
        }
        // What is set makes doubt of what goes right then: a key that goes after it ends that.
        func settleSettings() async throws {
            for probe in ["counters-mixed:p", "counters-mixed:q"] {
                try await client.send("SET", probe, "1")
                try await client.send("DEL", probe)
                try bench.flush()
            }
        }
        try await client.sendAll(keys("evicted").map { ["EXPIRE", $0, "10000"] })
        try bench.flush()
        let used = try #require(try await client.number("used_memory", in: "memory"))
        try await client.send("CONFIG", "SET", "maxmemory", "\(used + 300_000)")
        try await settleSettings()
        let value = String(repeating: "v", count: 10_000)
        for index in 0..<400 {
            // Refused once there is nothing more to evict.
            _ = try? await client.send("SET", "other:\(index)", value)
            if try await client.send(["EXISTS"] + keys("evicted")) == ["0"] { break }
        }
        #expect(
            try await client.number("evicted_keys", in: "stats") == keys("evicted").count)
        try bench.flush()
        try await client.send("CONFIG", "SET", "maxmemory", "0")
        try await settleSettings()
        try await client.sendAll(keys("expired").map { ["PEXPIRE", $0, "30"] })
        try await client.sendAll(keys("deleted").map { ["DEL", $0] })
        #expect(
            await Eventually.holds {
                (try? await client.send(["EXISTS"] + keys("expired"))) == ["0"]
            })
        try bench.flush()
    }

    private static func expect(
        _ bench: Bench, _ causes: [String], _ when: String,
        _ rows: (Kind, String) -> [String],
    ) throws {
        for kind in kinds {
            for policy in policies {
                let isMarking = policy.of.values.contains("mark")
                let mark = isMarking ? "CASE WHEN gone_at IS NULL THEN '' ELSE ' marked' END" : "''"
                let table = "\(kind.name)_\(policy.name)"
                for cause in causes {
                    let found = try bench.query(
                        "SELECT CAST(\(kind.query) AS TEXT) || \(mark) FROM \(table) "
                            + "WHERE id = '\(cause)' ORDER BY 1")
                    #expect(
                        found.map { $0[0] ?? "null" } == rows(kind, policy.of[cause] ?? ""),
                        "\(when): \(table) of a key that is \(cause)")
                }
            }
        }
    }
}
