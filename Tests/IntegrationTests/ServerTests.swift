import Foundation
import SluiceTesting
import Testing

@Suite("Every server and command", .serialized)
struct ServerTests {
    /// A whole database, where each removal deletes, so that the tables equal Redis after each case.
    static func mirror(_ folder: URL) throws -> String {
        let text = try SluiceProcess.run(["schema", "--mirror"], in: folder).output
        let tables = String(text[(text.range(of: "tables:")?.lowerBound ?? text.startIndex)...])
        return tables.replacing("\n    on_expire: delete", with: Self.always)
    }

    /// Whatever removes a key removes its rows.
    static let always =
        "\n    on_expire: delete\n    on_evict: delete\n    on_flush: delete"

    @Test("each server that CI needs is there", arguments: ServerKind.every + [.tooOld])
    func present(kind: ServerKind) async throws {
        let folder = try TemporaryFolder("sluice-server")
        let server = try await RedisServer(in: folder.url, program: [kind.program])
        let info = try await server.connect().send("INFO", "server").first ?? nil
        let fields = (info ?? "").split(whereSeparator: \.isNewline)
            .filter { $0.hasPrefix("redis_version:") || $0.hasPrefix("valkey_version:") }
        print("\(kind): \(fields.joined(separator: ", "))")
        let named = kind.description.replacing("-", with: "_version:") + "."
        #expect(fields.contains { $0.hasPrefix(named) }, "\(kind) is none of \(fields)")
        server.stop()
    }

    @Test(
        "after each command the rows equal Redis, and it was taken as the page says",
        arguments: ServerKind.every)
    func commands(kind: ServerKind) async throws {
        let ways = try await CommandPage.measure(kind)
        #expect(ways.count > 110)
        let page = try CommandPage.read(kind)
        for name in Set(ways.keys).union(page.keys).sorted() {
            let way = ways[name] ?? CommandPage.none
            #expect(page[name] == way, "\(kind): \(name) is taken otherwise; see CONTRIBUTING.md")
        }
    }

    /// Tables of one type each, as most configurations have them: a key of another type is a mistake.
    static let typed = [
        "string: { value: integer }\n    expires_at: gone_at",
        "hash: { f: integer, g: text }", "list: { items: json }",
        "set: { member: member:bytes }",
        "sorted_set: { member: m, score: s, longitude: lon, latitude: lat }",
        "stream: { id: id, fields: { f: text } }\n    rest: extra",
    ]

    /// Each Sluice is a replica of its own, so that WAIT waits for all of them.
    @Test(
        "after each command tables of one type, and a mirror in PostgreSQL, equal Redis",
        arguments: ServerKind.every)
    func typed(kind: ServerKind) async throws {
        let folder = try TemporaryFolder("sluice-typed")
        let mirror = try await Bench(
            .postgres, tables: try Self.mirror(folder.url), interval: "10ms", server: kind)
        var benches = [mirror]
        for type in Self.typed {
            let removals = type.hasPrefix("stream") ? "" : Self.always
            let tables = "tables:\n  t:\n    keys: \"<key>\"\n    \(type)\(removals)\n"
            benches.append(
                try await Bench(.sqlite, tables: tables, interval: "10ms", redis: mirror.redis))
        }
        for bench in benches { try await bench.start() }
        let client = try await mirror.redis.connect()
        func settle(_ comment: String) async throws {
            // What is only read, like PFCOUNT, is no write to wait for.
            try await client.send("PUBLISH", "settle", "1")
            let reached = try await client.send("WAIT", "\(benches.count)", "20000")
            #expect(reached == ["\(benches.count)"], "\(comment)")
        }
        let target = try await RedisServer(in: folder.url, program: [kind.program])
        defer { target.stop() }
        for line in try CommandCase.all() {
            try await line.prepare(client, port: target.port)
            try await settle("\(kind): before \(line)")
            guard try await line.run(client, port: target.port).isKnown else { continue }
            try await settle("\(kind): \(line)")
            for (bench, name) in zip(benches, ["mirror"] + Self.typed) {
                let found = try await bench.unexplained()
                #expect(found.isEmpty, "\(kind), \(name): \(line)")
                guard name != "mirror" else { continue }
                // What is set aside is a key of another type, or a value that does not fit.
                let type = String(name.prefix { $0 != ":" })
                let letters = try bench.query(
                    "SELECT CAST(key AS TEXT), code FROM sluice_dead_letters")
                for letter in letters {
                    let name = try await client.send("TYPE", letter[0] ?? "").first ?? nil
                    let isOfType = name == type || name == "zset" && type == "sorted_set"
                    #expect(
                        isOfType == (letter[1] == "value.type") && name != "none",
                        "\(kind), \(type): \(line) \(letter)")
                }
            }
        }
        try await client.send("FLUSHALL")
        try await settle("\(kind): at the end")
        for (bench, name) in zip(benches, ["mirror"] + Self.typed) {
            let letters = try bench.query("SELECT key, code FROM sluice_dead_letters")
            #expect(letters.isEmpty, "\(kind), \(name): \(letters)")
        }
        #expect(await mirror.counter("setAside") == 0, "\(kind): \(mirror.sluice.log.suffix(900))")
        let mistakes = await benches[1].counter("setAside")
        #expect(mistakes > 100, "\(kind): keys of other types are set aside")
    }

    @Test("no write command of any server is without a case", arguments: ServerKind.every)
    func coverage(kind: ServerKind) async throws {
        let folder = try TemporaryFolder("sluice-server")
        let server = try await RedisServer(in: folder.url, program: [kind.program])
        defer { server.stop() }
        let client = try await server.connect()
        var writing: [String] = []
        for name in try await client.send("COMMAND", "LIST").compactMap({ $0 })
        where !name.contains("|") {
            // Modules' commands have the flag, and need not be in the category.
            let info = try await client.send("COMMAND", "INFO", name)
            if info.contains("write") || info.contains("@write") {
                writing.append(name.lowercased())
            }
        }
        #expect(writing.count > 90)
        let covered = Set(
            try CommandCase.all().compactMap {
                $0.name.split(separator: " ").first?.lowercased()
            })
        let missing = Set(writing).subtracting(covered)
        // Those are for the nodes of a cluster, which are refused.
        #expect(
            missing.isSubset(of: ["restore-asking", "cluster"]), "\(kind): \(missing.sorted())")
    }

    @Test("RESTORE, functions, SWAPDB and transactions", arguments: ServerKind.every)
    func special(kind: ServerKind) async throws {
        let folder = try TemporaryFolder("sluice-mirror")
        let bench = try await Bench(
            .sqlite, tables: try Self.mirror(folder.url), interval: "10ms", server: kind)
        try await bench.start()
        let client = try await bench.redis.connect()
        let library = """
            #!lua name=lib
            redis.register_function('f', function(keys, args)
              redis.call('SET', keys[1], args[1])
              redis.call('INCR', keys[2])
              redis.call('RPUSH', keys[3], args[1])
            end)
            """
        try await client.send("FUNCTION", "LOAD", library)
        try await client.send("FCALL", "f", "3", "k", "c", "l", "v")
        try await client.send("FUNCTION", "FLUSH")
        try await client.send(
            "EVAL",
            "redis.call('RESTORE', KEYS[2], 100000, redis.call('DUMP', KEYS[1]), 'REPLACE')", "2",
            "l", "k")
        try bench.flush()
        try await bench.expectEqual("\(kind): RESTORE over a string")
        for command in ["MULTI", "SET a 1", "SELECT 3", "SET a 2", "SELECT 0", "INCR a", "EXEC"] {
            try await client.send(CommandCase.words(command))
        }
        try bench.flush()
        try await bench.expectEqual("\(kind): SELECT inside MULTI")
        #expect(try bench.query("SELECT value FROM strings WHERE key = 'a'") == [["2"]])
        // Each database has a key that the other has not, and one that it has otherwise.
        for command in ["SET only:0 x", "SELECT 3", "SET only:3 y", "SET a other", "SELECT 0"] {
            try await client.send(CommandCase.words(command))
        }
        try bench.flush()
        let strings =
            "SELECT key, value FROM strings WHERE key IN ('a', 'only:0', 'only:3') ORDER BY 1"
        #expect(try bench.query(strings) == [["a", "2"], ["only:0", "x"]])
        try await client.send("MULTI")
        try await client.send("SWAPDB", "0", "3")
        try await client.send("SET", "in:transaction", "z")
        try await client.send("EXEC")
        let swapped = [["a", "other"], ["only:0", "x"], ["only:3", "y"]]
        let isRead = await Eventually.holds {
            guard (try? bench.flush()) != nil else { return false }
            return (try? bench.query(strings)) == swapped
        }
        #expect(isRead, "\(kind): SWAPDB \(bench.sluice.log)")
        try await client.send("APPEND", "a", "+")
        try bench.flush()
        #expect(try bench.query("SELECT value FROM strings WHERE key = 'a'") == [["other+"]])
        // What went to the other database is counted, as after any gap, and goes when a person says so.
        #expect(await bench.counter("missing") > 0)
        let done = try bench.sluice.command("reconcile", "--delete-missing", "--yes")
        #expect(done.code == 0, "\(done.output)")
        try bench.flush()
        try await bench.expectEqual("\(kind): SWAPDB")
        #expect(try bench.query(strings) == [["a", "other+"], ["only:3", "y"]])
        // Two databases that no table maps are of no concern.
        let reads = await bench.counter("baselineReads")
        #expect(reads > 0)
        try await client.send("SWAPDB", "8", "9")
        try bench.flush()
        #expect(await bench.counter("baselineReads") == reads)
        try await bench.expectEqual("\(kind): SWAPDB of databases that no table maps")
    }

    @Test("MIGRATE takes rows from one database to another", arguments: ServerKind.every)
    func migrate(kind: ServerKind) async throws {
        let folder = try TemporaryFolder("sluice-mirror")
        let tables = try Self.mirror(folder.url)
        let from = try await Bench(.sqlite, tables: tables, interval: "10ms", server: kind)
        let to = try await Bench(.sqlite, tables: tables, interval: "10ms", server: kind)
        for bench in [from, to] { try await bench.start() }
        let client = try await from.redis.connect()
        let target = try await to.redis.connect()
        for command in [
            "SET s 1 EX 1000", "HSET h f v", "RPUSH l a b", "SADD m x y", "ZADD z 1.5 p",
            "XADD e 1-1 f v", "SET c 9",
        ] { try await client.send(CommandCase.words(command)) }
        try await target.send("HSET", "c", "f", "v")
        for bench in [from, to] { try bench.flush() }
        let port = "\(to.redis.port)"
        let migrate = ["MIGRATE", "127.0.0.1", port, "", "0", "5000"]
        let moved = try await client.send(
            migrate + ["REPLACE", "KEYS", "s", "h", "l", "m", "z", "e", "c"])
        #expect(moved == ["OK"])
        #expect(try await client.send("DBSIZE") == ["0"])
        #expect(try await target.send("DBSIZE") == ["7"])
        for bench in [from, to] {
            try bench.flush()
            try await bench.expectEqual("\(kind)")
            #expect(await bench.counter("setAside") == 0)
        }
        #expect(try from.number("SELECT count(*) FROM strings") == 0)
        #expect(try to.query("SELECT value FROM strings ORDER BY key") == [["9"], ["1"]])
    }

    @Test("a server that is too old is refused with what to do")
    func tooOld() async throws {
        try await expectRefusal(["too old", "Redis 7.0 or later"], .tooOld, [])
    }

    @Test(
        "a replica and a cluster node are refused with what to do", arguments: ServerKind.every)
    func refused(kind: ServerKind) async throws {
        try await expectRefusal(
            ["cluster", "without cluster-enabled"], kind,
            ["--cluster-enabled", "yes", "--cluster-port", "\(try FreePort.find())"])
        let folder = try TemporaryFolder("sluice-master")
        let master = try await RedisServer(in: folder.url, program: [kind.program])
        defer { master.stop() }
        try await expectRefusal(
            ["replica", "follow its master"], kind,
            ["--replicaof", "127.0.0.1 \(master.port)"])
    }

    private func expectRefusal(
        _ texts: [String], _ kind: ServerKind, _ options: [String],
    ) async throws {
        let bench = try await Bench(.sqlite, redisOptions: options, server: kind)
        let check = try bench.sluice.command("check")
        #expect(check.code != 0)
        try bench.sluice.start()
        #expect(bench.sluice.wait() != 0)
        for text in texts {
            #expect(bench.sluice.log.contains(text), "\(bench.sluice.log)")
            #expect(check.output.contains(text), "\(check.output)")
        }
    }
}
