import Foundation
import SluiceTesting
import Testing

@Suite("Commands", .serialized)
struct CommandTests {
    static func run(_ arguments: String...) throws -> (code: Int32, output: String) {
        let folder = try TemporaryFolder()
        return try SluiceProcess.run(arguments, in: folder.url)
    }

    static func config(_ text: String, in folder: TemporaryFolder) throws -> String {
        let file = folder.url.appending(path: "sluice.yaml")
        try text.write(to: file, atomically: true, encoding: .utf8)
        return file.path
    }

    @Test("--help names every command and shows a first configuration")
    func help() throws {
        let result = try Self.run("--help")
        #expect(result.code == 0)
        for command in ["run", "demo", "check", "schema", "status", "flush", "version", "tables:"] {
            #expect(result.output.contains(command))
        }
        #expect(try Self.run("version").output.hasPrefix("sluice "))
    }

    @Test("exit codes follow sysexits")
    func exitCodes() throws {
        let folder = try TemporaryFolder()
        #expect(try Self.run("run", "--config", "/nowhere.yaml").code == 66)
        #expect(try Self.run("run", "--wrong").code == 64)
        let wrong = try Self.config("tabels: {}", in: folder)
        let result = try Self.run("run", "--config", wrong)
        #expect(result.code == 78)
        #expect(result.output.contains("did you mean `tables`?"))
        let idle = try Self.config(
            "admin: { listen: '127.0.0.1:1' }\ntables: { a: { keys: 'k:<i>', set: { member: m } } }",
            in: folder)
        #expect(try Self.run("status", "--config", idle).code == 69)
        #expect(try Self.run("flush", "--config", idle).code == 69)
    }

    @Test("schema prints DDL, and --apply makes the tables")
    func schema() throws {
        let folder = try TemporaryFolder()
        let database = folder.url.appending(path: "x.db").path
        let config = try Self.config(
            "database: { url: 'sqlite:\(database)', create_tables: false }\n"
                + "tables: { a: { keys: 'k:<i>', string: { v: real } } }", in: folder)
        let printed = try Self.run("schema", "--config", config)
        #expect(printed.output.contains("CREATE TABLE IF NOT EXISTS \"a\""))
        #expect(printed.output.contains("sluice_position"))
        let check = try Self.run("check", "--config", config)
        #expect(check.code != 0)
        #expect(check.output.contains("schema.table"))
        #expect(try Self.run("schema", "--apply", "--config", config).code == 0)
        #expect(try Self.run("check", "--config", config).output.contains("1 tables fit"))
    }

    @Test("a table that lacks a column or a key is refused with what is missing")
    func tablesThatDoNotFit() throws {
        let folder = try TemporaryFolder()
        let database = folder.url.appending(path: "x.db").path
        for (sql, expected) in [
            ("CREATE TABLE a (i TEXT PRIMARY KEY)", "lacks the column v"),
            ("DROP TABLE a", ""), ("CREATE TABLE a (i TEXT, v REAL)", "lacks a primary key"),
        ] {
            let shell = try ServerProcess(
                [
                    "python3", "-c",
                    "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); "
                        + "c.execute(sys.argv[2]); c.commit()", database, sql,
                ],
                log: folder.url.appending(path: "python.log"))
            shell.wait()
            guard !expected.isEmpty else { continue }
            let config = try Self.config(
                "database: { url: 'sqlite:\(database)' }\n"
                    + "tables: { a: { keys: 'k:<i>', string: { v: real } } }", in: folder)
            let result = try Self.run("run", "--config", config)
            #expect(result.code == 65, "\(result.output)")
            #expect(result.output.contains(expected), "\(result.output)")
        }
    }

    @Test("check says what Redis's settings put at risk, and how to mend it")
    func guards() async throws {
        let folder = try TemporaryFolder()
        let redis = try await RedisServer(
            in: folder.url,
            options: [
                "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru",
                "--min-replicas-to-write", "1", "--min-replicas-max-lag", "10",
            ])
        defer { redis.stop() }
        let client = try await redis.connect()
        try await client.send("CONFIG", "SET", "min-replicas-to-write", "0")
        for command in [["SET", "nobody:s", "1"], ["SET", "k:a", "1", "PX", "60000"]] {
            try await client.send(command)
        }
        try await client.send("CONFIG", "SET", "min-replicas-to-write", "1")
        let config = try Self.config(
            """
            redis: { url: 'redis://127.0.0.1:\(redis.port)', configure: false }
            database: { url: 'sqlite:\(folder.url.appending(path: "x.db").path)' }
            sync: { interval: 2m }
            tables: { a: { keys: 'k:<i>', string: { v: integer } } }
            """, in: folder)
        let result = try Self.run("check", "--config", config)
        for expected in [
            "redis.persistence: without an AOF", "CONFIG SET appendonly yes",
            "redis.eviction: maxmemory-policy is allkeys-lru", "redis.min_replicas",
            "CONFIG SET notify-keyspace-events Exe", "redis.backlog",
            "CONFIG SET repl-backlog-size",
            "1 of 2 sampled keys match no table, such as nobody:s", "redis.deadlines: 1 of 2",
        ] {
            #expect(result.output.contains(expected), "\(expected)\n\(result.output)")
        }
        #expect(result.code == 0)
        let left = try await Self.mended(result.output, client, config)
        #expect(
            left == ["redis.min_replicas", "redis.deadlines"], "those two are of one's own choice")
    }

    /// Does what hints say, and finds out what is left to warn of.
    private static func mended(
        _ output: String, _ client: RedisClient, _ config: String,
    ) async throws -> [String] {
        for match in output.matches(of: /CONFIG SET ([\w-]+) (\w+)/) {
            let reply = try await client.send(
                "CONFIG", "SET", String(match.output.1), String(match.output.2))
            #expect(reply == ["OK"], "\(match.output.0)")
        }
        // An AOF is written anew before it counts.
        _ = await Eventually.holds {
            let info = try? await client.send("INFO", "persistence").first ?? nil
            return info?.contains("aof_rewrite_in_progress:0") == true
        }
        let again = try run("check", "--config", config)
        #expect(again.code == 0)
        return again.output.matches(of: /WARNING ([\w.]+):/).map { String($0.output.1) }
    }

    @Test(
        "check and run measure what Redis is written, and name settings of the disk and of policies"
    )
    func guardsUnderLoad() async throws {
        let folder = try TemporaryFolder()
        let redis = try await RedisServer(
            in: folder.url,
            options: [
                "--appendonly", "yes", "--appendfsync", "no", "--maxmemory", "1gb",
                "--maxmemory-policy", "volatile-ttl",
            ])
        defer { redis.stop() }
        let client = try await redis.connect()
        let configuration = """
            redis: { url: 'redis://127.0.0.1:\(redis.port)' }
            database: { url: 'sqlite:\(folder.url.appending(path: "x.db").path)' }
            tables: { a: { keys: 'k:<i>', string: { v: text }, on_evict: delete } }
            """
        let config = try Self.config(configuration, in: folder)
        // About 5 MB a second, so that a minute's writes are a few hundred.
        let writer = Task {
            let other = try await redis.connect()
            let value = String(repeating: "x", count: 50_000)
            while !Task.isCancelled {
                try await other.send("SET", "k:1", value)
                try await ContinuousClock().sleep(for: .milliseconds(10))
            }
        }
        let expected = [
            "redis.persistence: appendfsync is no: a crash of the machine loses up to 30 seconds",
            "redis.eviction: maxmemory-policy is volatile-ttl, and a table deletes the rows",
            "redis.backlog: repl-backlog-size is",
        ]
        let result = try Self.run("check", "--config", config)
        for text in expected { #expect(result.output.contains(text), "\(text)\n\(result.output)") }
        #expect(result.output.contains("Redis holds the stream up to 256 MB, or 64 MB for 60 s"))
        let sizes = try #require(
            result.output.firstMatch(
                of: /minute of writes is now (\d+) MB[^$]*backlog-size (\d+)mb/))
        let (minute, size) = (Int(sizes.output.1) ?? 0, Int(sizes.output.2) ?? 0)
        #expect((60..<1_000).contains(minute), "\(result.output)")
        #expect(size >= max(256, 2 * minute) && size <= max(256, 2 * minute + 2))

        let sluice = try SluiceProcess(in: folder.url, configuration: configuration)
        try sluice.start()
        for text in expected {
            #expect(await Eventually.holds { sluice.log.contains(text) }, "\(text)\n\(sluice.log)")
        }
        let logged = sluice.log.firstMatch(of: /minute of writes is now (\d+) MB/)
        #expect((60..<1_000).contains(logged.flatMap { Int($0.output.1) } ?? 0), "\(sluice.log)")
        #expect(sluice.stop(SIGTERM) == 0)
        // As many as were measured: a machine that has more time would write more.
        writer.cancel()
        _ = await writer.result
        let left = try await Self.mended(result.output, client, config)
        #expect(left.isEmpty)
    }

    @Test(
        "a user who may not read Redis's settings, or a Redis that is down at first, hides no finding"
    )
    func guardsLater() async throws {
        let folder = try TemporaryFolder()
        let redis = try await RedisServer(
            in: folder.url,
            options: [
                "--user", "limited", "on", ">word", "~*", "&*", "+@all", "-config",
                "--user", "default", "on", "nopass", "~*", "&*", "+@all",
            ])
        let configuration = """
            redis: { url: 'redis://limited:word@127.0.0.1:\(redis.port)', configure: false }
            database: { url: 'sqlite:\(folder.url.appending(path: "x.db").path)' }
            tables: { a: { keys: 'k:<i>', string: { v: text } } }
            """
        let expected = [
            "redis.settings: Redis does not let this user read its settings",
            "ACL SETUSER limited +config|get", "redis.persistence: without an AOF",
            "1 of 1 sampled keys match no table, such as nobody:s",
        ]
        let client = try await redis.connect()
        try await client.send("SET", "nobody:s", "1")
        let config = try Self.config(configuration, in: folder)
        let result = try Self.run("check", "--config", config)
        for text in expected { #expect(result.output.contains(text), "\(text)\n\(result.output)") }
        redis.stop()

        let sluice = try SluiceProcess(in: folder.url, configuration: configuration)
        try sluice.start()
        #expect(await Eventually.holds { sluice.log.contains("Waiting for Redis") })
        try await redis.start()
        try await redis.connect().send("SET", "nobody:s", "1")
        for text in expected {
            #expect(
                await Eventually.holds(within: .seconds(20)) { sluice.log.contains(text) },
                "\(text)\n\(sluice.log)")
        }
        #expect(sluice.stop(SIGTERM) == 0)
        redis.stop()
    }

    @Test("without Redis it waits and says so once; SIGTERM ends it in good order")
    func waits() async throws {
        let folder = try TemporaryFolder()
        let port = try FreePort.find()
        let sluice = try SluiceProcess(
            in: folder.url,
            configuration: """
                redis: { url: 'redis://127.0.0.1:\(port)' }
                database: { url: 'sqlite:\(folder.url.appending(path: "x.db").path)' }
                tables: { a: { keys: 'k:<i>', set: { member: m } } }
                """)
        try sluice.start()
        let says = await Eventually.holds { sluice.log.contains("Waiting for Redis") }
        #expect(says)
        // Long enough for several attempts.
        try await ContinuousClock().sleep(for: .seconds(2))
        #expect(sluice.log.components(separatedBy: "Waiting for Redis").count == 2, "\(sluice.log)")
        #expect(try sluice.command("status").code == 75)
        #expect(sluice.stop(SIGTERM) == 0)
    }
}
