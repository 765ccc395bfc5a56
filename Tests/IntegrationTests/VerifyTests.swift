import Foundation
import SluiceTesting
import Testing

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

@Suite("Verify", .serialized)
struct VerifyTests {
    @Test(
        "random commands of all types, with crashes, leave no difference",
        arguments: [ServerKind.supported[1], ServerKind.supported[2]])
    func randomCommands(kind: ServerKind) async throws {
        let variables = ProcessInfo.processInfo.environment
        let seed = variables["SLUICE_SEED"].flatMap { UInt64($0) } ?? .random(in: 0...UInt64.max)
        let steps = variables["SLUICE_STEPS"].flatMap { Int($0) } ?? 2_500
        print("\(kind): seed \(seed)")
        let folder = try TemporaryFolder("sluice-random")
        let bench = try await Bench(
            .sqlite, tables: try ServerTests.mirror(folder.url),
            redisOptions: ["--maxmemory-policy", "allkeys-random"], interval: "20ms", server: kind)
        try await bench.start()
        let operations = try await bench.redis.connect()
        let clients = try await RandomCommands.clients(bench.redis, count: 3, seed: seed)
        var random = SplitMix64(seed: seed)
        for round in 0..<4 {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for client in clients {
                    group.addTask { try await client.run(steps: steps / 4) }
                }
                try await Task.sleep(for: .milliseconds(random.pick(20..<300)))
                bench.sluice.stop()
                try bench.sluice.start()
                try await Self.evict(operations)
                try await group.waitForAll()
            }
            let isFlushed = await Eventually.holds(within: .seconds(60)) {
                (try? bench.sluice.command("flush"))?.code == 0
            }
            #expect(isFlushed, "\(kind): seed \(seed), round \(round) \(bench.sluice.log)")
            let result = try bench.sluice.command("verify")
            #expect(
                result.code == 0,
                "\(kind): seed \(seed), round \(round) \(result.output.prefix(2_000))")
        }
        let evicted = try await operations.number("evicted_keys", in: "stats") ?? 0
        print("\(evicted) keys were evicted")
        #expect(evicted > 0)
    }

    // Takes some memory away for a moment.
    private static func evict(_ client: RedisClient) async throws {
        let used = try #require(try await client.number("used_memory", in: "memory"))
        let spared = try #require(
            try await client.number("mem_not_counted_for_evict", in: "memory"))
        try await client.send("CONFIG", "SET", "maxmemory", "\(used - spared - 4_000)")
        try await Task.sleep(for: .milliseconds(20))
        try await client.send("CONFIG", "SET", "maxmemory", "0")
    }

    @Test(
        "rows that change all the time are compared, and what differs is found",
        arguments: DatabaseKind.allCases)
    func live(kind: DatabaseKind) async throws {
        let bench = try await Bench(kind, server: ServerKind.supported[1])
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.sendAll((0..<50).map { ["SET", "c:\($0)", "1000"] })
        try await client.send("ZADD", "z:a", "5", "m", "6", "n")
        try bench.flush()
        // An instance that never knew the rows only adds to them.
        bench.sluice.stop(SIGTERM)
        try await bench.start()
        try bench.tamper("UPDATE counters SET value = value + 1 WHERE id IN ('7', '8')")
        let traffic = Traffic(bench.redis)
        try await Task.sleep(for: .milliseconds(300))
        for _ in 0..<3 {
            // Adds go on top of what was tampered with: those rows differ at every offset.
            let found = try bench.report("verify", "--json")
            #expect(found.differences.count == 2, "\(found.output)")
            for id in ["7", "8"] {
                let isFound = found.differences.contains {
                    $0.hasPrefix("counters \(id): different")
                }
                #expect(isFound, "\(found.output)")
            }
            // What had to be read at each look may be open: what is appended to, or loses fields.
            #expect(
                found.openRows.allSatisfy { $0.hasPrefix("texts ") || $0.hasPrefix("sessions ") },
                "\(found.output)")
        }
        let mended = try bench.report("verify", "--repair", "--json")
        // 75 says that some row could not be compared: those that lose fields all the time.
        let again = try bench.report("verify", "--json")
        for report in [mended, again] {
            #expect(report.differences.isEmpty, "\(report.output)")
            #expect(report.code == (report.open == 0 ? 0 : 75), "\(report.output)")
            #expect(
                report.openRows.allSatisfy { $0.hasPrefix("texts ") || $0.hasPrefix("sessions ") })
        }
        await traffic.stop()
        // The last short keys go by themselves.
        try await Task.sleep(for: .milliseconds(300))
        try bench.flush()
        try await bench.expectEqual()
        #expect(await bench.counter("resynchronisations") == 0)
    }

    @Test("what is missing and extra is found, by table and by sample")
    func kinds() async throws {
        let bench = try await Bench(.sqlite)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.send("ZADD", "z:a", "5", "m", "6", "n")
        try bench.flush()
        try bench.tamper(
            """
            DELETE FROM scores WHERE player = 'm'; INSERT INTO tags VALUES ('a', 'nobody');
            INSERT INTO scores VALUES ('a', 'nobody', 3)
            """)
        let found = try bench.sluice.command("verify")
        #expect(found.code == 65)
        for text in ["scores a m: missing", "scores a nobody: extra", "tags a nobody: extra"] {
            #expect(found.output.contains(text), "\(found.output)")
        }
        #expect(try bench.sluice.command("verify", "--table", "sessions").code == 0)
        // The key of the tag is gone, so nothing says that its row may go.
        let mended = try bench.sluice.command("verify", "--repair")
        #expect(mended.code == 65 && mended.output.contains("1 differ"), "\(mended.output)")
        #expect(mended.output.contains("reconcile --delete-missing"), "\(mended.output)")
        // A share of the keys is the same share on both sides, and finds some of what differs.
        try await client.sendAll((0..<400).map { ["SET", "t:\($0)", "x"] })
        try bench.flush()
        try bench.tamper("UPDATE texts SET value = 'y'")
        let some = try bench.report("verify", "--table", "texts", "--sample", "25%", "--json")
        #expect(some.code == 65 && (50..<150).contains(some.differ), "\(some.output.suffix(200))")
        #expect(try bench.sluice.command("verify", "--sample", "0").code == 64)
    }

    @Test("values that databases write otherwise, rows of nobody, and any setting of PostgreSQL")
    func forms() async throws {
        for kind in DatabaseKind.allCases {
            let bench = try await Bench(
                kind,
                tables: """
                    tables:
                      things:
                        keys: "thing:<a>:<b>"
                        hash: { at: timestamp, real: real, flag: boolean, text: text }
                        expires_at: until
                    """)
            if bench.postgres != nil {
                try bench.tamper("ALTER ROLE CURRENT_USER SET standard_conforming_strings = off")
            }
            try await bench.start()
            let client = try await bench.redis.connect()
            let odd = "\\')); CREATE TABLE pwned(); --"
            for (name, at) in [("1", "1700000000.1237"), ("2", "-1.0005"), (odd, "1700000000")] {
                try await client.send(
                    "HSET", "thing:\(name):x", "at", at, "real", "-0", "flag", "off", "text", odd)
                try await client.send("PEXPIREAT", "thing:\(name):x", "999999999999999")
            }
            try bench.flush()
            let quiet = try bench.report("verify", "--json")
            #expect(quiet.code == 0 && quiet.compared == 3, "\(kind) \(quiet.output)")
            // Rows that no key of the pattern makes, the last ones of the table among them.
            try bench.tamper(
                "INSERT INTO things (a, b) VALUES ('1:2', '3'), ('zz', ''), ('z:2', '3')")
            let found = try bench.report("verify", "--json")
            #expect(found.code == 65 && found.differ == 3, "\(kind) \(found.output)")
        }
    }

    @Test("documents and decimals are compared to the last digit", arguments: DatabaseKind.allCases)
    func digits(kind: DatabaseKind) async throws {
        let bench = try await Bench(
            kind,
            tables: """
                tables:
                  documents:
                    keys: "d:<name>"
                    json:
                      $: document
                      $.price: price
                      $.list: list
                      $.big: big:decimal
                      $.name: label
                  carts:
                    keys: "cart:<name>"
                    hash: { total: decimal }
                    rest: items
                """)
        try await bench.start()
        let client = try await bench.redis.connect()
        let big = String(repeating: "1234567890", count: 6) + ".50"
        let document = """
            {"price" : 1.50, "list": [ 1,  2.0e3 ], "big": \(big), "id": 12345678901234567890,
             "name": "x", "name": "\\u00e9\\ud83c\\udf88", "small": -0.0, "tiny": 1E-7}
            """
        for name in ["a", "b"] { try await client.send("SET", "d:\(name)", document) }
        for name in ["a", "b"] {
            try await client.send(
                "HSET", "cart:\(name)", "total", "0" + big, "e\u{301}", "one", "\u{e9}", "other")
        }
        try bench.flush()
        let quiet = try bench.report("verify", "--json")
        #expect(quiet.code == 0 && quiet.compared == 4, "\(kind) \(quiet.output)")
        #expect(
            try bench.query("SELECT price, list FROM documents WHERE name = 'a'")
                == [["1.50", "[ 1,  2.0e3 ]"]])
        let json = kind == .postgres ? "::jsonb" : ""
        func change(_ table: String, _ column: String, _ old: String, _ new: String) throws {
            let isDecimal = ["big", "total"].contains(column)
            let type =
                ["document", "items"].contains(column)
                ? json : kind == .postgres && isDecimal ? "::numeric" : ""
            try bench.tamper(
                "UPDATE \(table) SET \(column) = "
                    + "replace(CAST(\(column) AS TEXT), '\(old)', '\(new)')\(type) WHERE name = 'b'"
            )
        }
        for (table, column, old, new) in [
            (
                "documents", "document", "\"id\": 12345678901234567890",
                "\"id\": 12345678901234567891"
            ),
            ("documents", "document", "67890.50", "67891.50"),
            ("documents", "price", "1.50", "1.5"),
            ("documents", "big", "67890.50", "67890.51"), ("carts", "total", "7890.50", "7890.51"),
            ("documents", "label", "\u{e9}", "e\u{301}"), ("carts", "items", "\u{e9}", "e\u{300}"),
        ] {
            try change(table, column, old, new)
            let found = try bench.report("verify", "--table", table, "--json")
            #expect(
                found.differences.map { $0.prefix(table.count + 2) } == ["\(table) b"],
                "\(column) \(old)")
            #expect(try bench.sluice.command("verify", "--repair").code == 0)
        }
    }

    @Test("keys and members of any bytes, and keys of many fields and elements")
    func shapes() async throws {
        let bench = try await Bench(
            .sqlite,
            tables: """
                tables:
                  blobs:
                    keys: "b:<id:bytes>"
                    string: { value: bytes }
                  members:
                    keys: "s:<id:bytes>:<number:integer>"
                    set: { member: "tag:bytes" }
                  carts:
                    keys: "cart:<id>"
                    hash: { owner: integer }
                    rest: items
                  queues:
                    keys: "l:<name>"
                    list: { items: json }
                """)
        try await bench.start()
        let client = try await bench.redis.connect()
        let odd: [UInt8] = [0xFF, 0x00, 0x27, 0x5C, 0x0A]
        func key(_ text: String) -> [UInt8] { Array(text.utf8) }
        try await client.send(bytes: [key("SET"), key("b:") + odd, odd])
        try await client.send(bytes: [key("SADD"), key("s:") + odd + key(":7"), odd, key("x'")])
        try await client.send(bytes: [key("SADD"), key("s:a:07"), key("no number of this form")])
        for start in stride(from: 0, to: 5_000, by: 1_000) {
            let range = start..<start + 1_000
            try await client.sendAll([
                ["HSET", "cart:1", "owner", "7"] + range.flatMap { ["f\($0)", "\($0)"] },
                ["RPUSH", "l:a"] + range.map { "\($0)" },
            ])
        }
        try bench.flush()
        let quiet = try bench.report("verify", "--json")
        #expect(quiet.code == 0 && quiet.open == 0, "\(quiet.output)")
        #expect(quiet.compared == 6, "a blob, two members and the one set aside, a cart, a queue")
        try bench.tamper(
            """
            UPDATE blobs SET value = X'00'; DELETE FROM members WHERE tag = X'ff00275c0a';
            UPDATE carts SET items = json_remove(items, '$.f4999');
            UPDATE queues SET items = json_remove(items, '$[0]')
            """)
        let traffic = Traffic(bench.redis)
        let found = try bench.report("verify", "--json")
        await traffic.stop()
        let hex = "\\xff00275c0a"
        for name in ["blobs \(hex): different", "members \(hex) 7 \(hex): missing"] {
            #expect(
                found.differences.contains { $0.hasPrefix(name) }, "\(found.output.prefix(900))")
        }
        for name in ["carts 1: different", "queues a: different"] {
            #expect(found.differences.contains { $0.hasPrefix(name) }, "\(name)")
        }
        #expect(found.differences.count == 4)
    }

    @Test("a comparison that dies, and one beside another, hold up nothing for long")
    func holds() async throws {
        let bench = try await Bench(.sqlite)
        try await bench.start()
        let client = try await bench.redis.connect()
        let held = try await bench.post("/hold")
        #expect(held.status == 200)
        #expect(try await bench.post("/hold").status == 409)
        try await client.send("SET", "c:1", "5")
        // Beyond what Redis has, nothing is reached before the hold ends.
        let text = String(decoding: held.body, as: UTF8.self)
        #expect(try await bench.post("/advance", body: Data("{}".utf8)).status == 400)
        let start = ContinuousClock.now
        let beyond = text.replacing(/"offset":\d+/, with: "\"offset\":999999999999")
        #expect(try await bench.post("/advance", body: Data(beyond.utf8)).status == 409)
        #expect(ContinuousClock.now - start < .seconds(20))
        #expect(try await bench.post("/release", body: held.body).status == 409)
        let isThere = await Eventually.holds(within: .seconds(10)) {
            (try? bench.number("SELECT value FROM counters WHERE id = '1'")) == 5
        }
        #expect(isThere, "\(bench.sluice.log)")
        // A hold puts off no stop in good order.
        #expect(try await bench.post("/hold").status == 200)
        try await client.send("SET", "c:1", "6")
        let stopping = ContinuousClock.now
        #expect(bench.sluice.stop(SIGTERM) == 0)
        #expect(ContinuousClock.now - stopping < .seconds(5))
        try await bench.start()
        try bench.flush()
        #expect(try bench.number("SELECT value FROM counters WHERE id = '1'") == 6)
    }
}

/// Commands of all kinds on a few rows, as fast as Redis takes them.
private final class Traffic: Sendable {
    private let task: Task<Void, Never>

    init(_ redis: RedisServer) {
        task = Task {
            guard let client = try? await redis.connect() else { return }
            defer { client.close() }
            var random = SplitMix64(seed: 5)
            while !Task.isCancelled {
                var commands: [[String]] = []
                for index in 0..<50 {
                    commands.append(["INCR", "c:\(index)"])
                    commands.append(["ZINCRBY", "z:a", "1", "p\(index)"])
                }
                let number = "\(random.pick(0..<9))"
                commands += [
                    ["HINCRBY", "session:1", "user_id", "1"], ["APPEND", "t:busy", "x"],
                    ["SET", "t:short\(number)", "v", "PX", "2"],
                    ["XADD", "e:a", "MAXLEN", "~", "1000", "*", "n", number],
                    ["HSET", "session:\(number)", "cart", "{}", "extra", number],
                    ["HPEXPIRE", "session:\(number)", "2", "FIELDS", "1", "extra"],
                    ["SADD", "s:a", number], ["SPOP", "s:a"], ["RPUSH", "l:b", number],
                    ["LTRIM", "l:b", "0", "20"], ["SET", "t:busy", ""],
                ]
                _ = try? await client.sendAll(commands)
                try? await Task.sleep(for: .milliseconds(1))
            }
        }
    }

    func stop() async {
        task.cancel()
        await task.value
    }
}

extension Bench {
    /// What `verify --json` says.
    struct VerifyReport {
        let code: Int32
        let output: String
        let compared: Int
        let differ: Int
        let open: Int
        let differences: [String]
        let openRows: [String]
    }

    func report(_ arguments: String...) throws -> VerifyReport {
        let result = try sluice.command(arguments)
        let object = try? JSONSerialization.jsonObject(with: Data(result.output.utf8))
        let fields = object as? [String: Any] ?? [:]
        return VerifyReport(
            code: result.code, output: result.output, compared: fields["compared"] as? Int ?? -1,
            differ: fields["differ"] as? Int ?? -1, open: fields["open"] as? Int ?? -1,
            differences: fields["differences"] as? [String] ?? [],
            openRows: fields["openRows"] as? [String] ?? ["?"])
    }

    /// Asks the admin listener.
    func post(_ path: String, body: Data = Data()) async throws -> (status: Int, body: Data) {
        guard let url = URL(string: "http://127.0.0.1:\(sluice.adminPort)\(path)") else {
            throw CocoaError(.fileNoSuchFile)
        }
        var request = URLRequest(url: url, timeoutInterval: 60)
        request.httpMethod = "POST"
        request.httpBody = body
        let (data, response) = try await URLSession.shared.data(for: request)
        return ((response as? HTTPURLResponse)?.statusCode ?? 0, data)
    }
}

/// Sends commands of the conformance cases at random.
final class RandomCommands: Sendable {
    private let client: RedisClient
    private let commands: [String]
    private let seed: UInt64

    static func clients(
        _ redis: RedisServer, count: Int, seed: UInt64,
    ) async throws -> [RandomCommands] {
        // Commands that wait would hold up the test, and a flush leaves little to compare.
        let unwanted = ["BL", "BR", "BZ", "FLUSH", "PUBLISH", "SPUBLISH", "SCRIPT"]
        let commands = try ServerTests.cases().flatMap { line in
            line.replacing("]", with: "").components(separatedBy: "[after ")
                .flatMap { $0.components(separatedBy: " | ") }
        }.filter { command in !unwanted.contains { command.hasPrefix($0) } }
        var clients: [RandomCommands] = []
        for index in 0..<count {
            clients.append(
                RandomCommands(
                    client: try await redis.connect(), commands: commands,
                    seed: seed &+ UInt64(index)))
        }
        return clients
    }

    private init(client: RedisClient, commands: [String], seed: UInt64) {
        self.client = client
        self.commands = commands
        self.seed = seed
    }

    func run(steps: Int) async throws {
        var random = SplitMix64(seed: seed)
        for step in 0..<steps {
            if step % 10 == 9 {
                let key = ["k", "h", "l", "s", "z", "d"][random.pick(0..<6)]
                try await client.send("PEXPIRE", key, "\(random.pick(1..<40))")
            }
            let count = random.oneIn(5) ? random.pick(2..<6) : 1
            var chosen = (0..<count).map { _ in
                ServerTests.words(commands[random.pick(0..<commands.count)])
            }
            if count > 1 { chosen = [["MULTI"]] + chosen + [["EXEC"]] }
            try await client.sendAll(chosen)
        }
    }
}
