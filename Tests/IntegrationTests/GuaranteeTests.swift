import Foundation
import SluiceSQLite
import SluiceTesting
import Testing

@Suite("Guarantees", .serialized)
struct GuaranteeTests {
    @Test("when WAIT returns, the write is in the database", arguments: DatabaseKind.allCases)
    func waiting(kind: DatabaseKind) async throws {
        let bench = try await Bench(kind, interval: "30s")
        try await bench.start()
        let client = try await bench.redis.connect()
        for count in 1...500 {
            try await client.send("INCR", "c:waited")
            let replicas = try await client.send("WAIT", "1", "5000")
            #expect(replicas == ["1"])
            let stored = try bench.number("SELECT value FROM counters WHERE id = 'waited'")
            try #require(stored == count)
        }
    }

    @Test(
        "when WAITAOF returns, the write is in the database", arguments: ServerKind.supported[1...])
    func waitingForAOF(kind: ServerKind) async throws {
        let bench = try await Bench(.sqlite, interval: "30s", server: kind)
        try await bench.start()
        let client = try await bench.redis.connect()
        for count in 1...100 {
            try await client.send("INCR", "c:waited")
            // None of the server's own files, one replica.
            #expect(try await client.send("WAITAOF", "0", "1", "5000").last == "1")
            let stored = try bench.number("SELECT value FROM counters WHERE id = 'waited'")
            try #require(stored == count)
        }
    }

    @Test("many waiting clients share commits")
    func sharedCommits() async throws {
        let bench = try await Bench(.sqlite, interval: "30s")
        try await bench.start()
        let before = await bench.counter("commits")
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<200 {
                group.addTask {
                    let client = try await bench.redis.connect()
                    defer { client.close() }
                    for _ in 0..<5 {
                        try await client.send("INCR", "c:\(number)")
                        #expect(try await client.send("WAIT", "1", "10000") == ["1"])
                    }
                }
            }
            try await group.waitForAll()
        }
        let commits = await bench.counter("commits") - before
        #expect(commits < 500, "\(commits) commits for 1,000 waits")
        #expect(try bench.number("SELECT sum(value) FROM counters") == 1_000)
    }

    @Test("no reader of the database sees half of a MULTI", arguments: DatabaseKind.allCases)
    func consistentCuts(kind: DatabaseKind) async throws {
        let bench = try await Bench(kind, interval: "5ms")
        try await bench.start()
        let end = ContinuousClock.now + .seconds(4)
        async let writes = Self.writePairs(bench.redis, until: end)
        var seen = Set<String>()
        while ContinuousClock.now < end {
            let rows = try bench.query(
                "SELECT id, value FROM counters WHERE id IN ('left', 'right') "
                    + "UNION ALL SELECT 'hash', user_id FROM sessions WHERE id = 'pair' "
                    + "UNION ALL SELECT 'score', CAST(points AS bigint) FROM scores")
            let values = Set(rows.map { $0[1] ?? "null" })
            #expect(values.count <= 1, "\(rows)")
            seen.formUnion(values)
        }
        let pairs = try await writes
        #expect(seen.count > 5, "the reader saw \(seen.count) of \(pairs) states")
        try bench.flush()
        try await bench.expectEqual()
    }

    static func writePairs(_ redis: RedisServer, until end: ContinuousClock.Instant) async throws
        -> Int
    {
        let client = try await redis.connect()
        defer { client.close() }
        var count = 0
        while ContinuousClock.now < end {
            count += 1
            try await client.sendAll([
                ["MULTI"], ["INCR", "c:left"], ["INCR", "c:right"],
                ["HSET", "session:pair", "user_id", "\(count)"],
                ["ZADD", "z:pair", "\(count)", "p"],
                ["EXEC"],
            ])
        }
        return count
    }

    @Test("TLS, a password and the least permissions suffice")
    func secured() async throws {
        let folder = try TemporaryFolder()
        let log = folder.url.appending(path: "openssl.log")
        let key = folder.url.appending(path: "key.pem").path
        let certificate = folder.url.appending(path: "cert.pem").path
        let openssl = try ServerProcess(
            [
                "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out",
                certificate, "-days", "2", "-subj", "/CN=localhost", "-addext",
                "subjectAltName=DNS:localhost,IP:127.0.0.1",
            ], log: log)
        openssl.wait()
        try #require(openssl.exitCode == 0)
        let port = try FreePort.find()
        // The other servers are built without TLS.
        let redis = try await RedisServer(
            in: folder.url, program: [ServerKind.supported[0].program],
            options: [
                "--tls-port", "\(port)", "--tls-cert-file", certificate, "--tls-key-file", key,
                "--tls-ca-cert-file", certificate, "--tls-auth-clients", "no",
            ])
        let admin = try await redis.connect()
        // The commands of docs/permissions.md.
        let page = URL(filePath: #filePath).deletingLastPathComponent()
            .appending(path: "../../docs/permissions.md")
        let lines = try String(contentsOf: page, encoding: .utf8).split(separator: "\n")
            .filter { $0.hasPrefix("ACL SETUSER") }
        try #require(lines.count == 3)
        for line in lines {
            let words = line.replacing(">PASSWORD", with: ">secret").split(separator: " ")
            try #require(try await admin.send(words.map(String.init)) == ["OK"], "\(line)")
        }
        let path = folder.url.appending(path: "test.db").path
        let sluice = try SluiceProcess(
            in: folder.url,
            configuration: """
                redis:
                  url: rediss://sluice:secret@localhost:\(port)/0
                  tls_ca_file: \(certificate)
                database:
                  url: sqlite:\(path)
                tables:
                  counters:
                    keys: "c:<id>"
                    string: { value: integer }
                    expires_at: expires_at
                  hashes: { keys: "h:<id>", hash: { n: integer } }
                  rests: { keys: "r:<id>", hash: { n: integer }, rest: others }
                  lists: { keys: "l:<id>", list: { items: json } }
                  sets: { keys: "s:<id>", set: { member: member } }
                  scores: { keys: "z:<id>", sorted_set: { member: member, score: score } }
                  streams: { keys: "x:<id>", stream: { id: entry, fields: fields } }
                  places: { keys: "g:<id>", sorted_set: { member: m, longitude: lon, latitude: lat } }
                  sketches: { keys: "p:<id>", hyperloglog: { count: count } }
                  others: { keys: "z:<id>", set: { member: member } }
                """)
        try await admin.sendAll([
            ["SET", "c:before", "4"], ["HSET", "h:1", "n", "1"],
            ["HSET", "r:1", "n", "1", "m", "2"],
            ["RPUSH", "l:1", "a"], ["SADD", "s:1", "a"], ["ZADD", "z:1", "1", "a"],
            ["XADD", "x:1", "*", "f", "v"], ["GEOADD", "g:1", "1", "2", "a"],
            ["PFADD", "p:1", "a"],
        ])
        try sluice.start()
        let isUp = await Eventually.holds { (try? sluice.command("status").code) == 0 }
        try #require(isUp, "\(sluice.log)")
        // What is read for a baseline, and because a command does not say its result.
        try await admin.sendAll([
            ["INCR", "c:a"], ["APPEND", "c:b", "7"], ["ZADD", "z:1", "GT", "3", "a"],
            ["SMOVE", "s:1", "s:2", "a"],
        ])
        for type in ["h", "r", "l", "z", "x", "g", "p"] {
            try await admin.send("RENAME", "\(type):1", "\(type):2")
        }
        #expect(try sluice.command("flush").code == 0)
        let verified = try sluice.command("verify")
        #expect(verified.code == 0, "\(verified.output) \(sluice.log)")
        #expect(!sluice.log.contains("secret"))
        // A permission that is missing is named, and what waits for it is written once it is there.
        try await admin.send("ACL", "SETUSER", "sluice", "-zscan")
        try await admin.send("RENAME", "z:2", "z:3")
        let isNamed = await Eventually.holds {
            (try? sluice.command("status").output.contains("ZSCAN")) == true
        }
        #expect(isNamed, "\(sluice.log)")
        try await admin.send("ACL", "SETUSER", "sluice", "+zscan")
        #expect(try sluice.command("flush").code == 0)
        // Why a key went is learnt with these permissions too.
        try await admin.sendAll([["DEL", "c:b"], ["PEXPIRE", "c:a", "20"]])
        let isGone = await Eventually.holds { (try? await admin.send("EXISTS", "c:a")) == ["0"] }
        #expect(isGone)
        #expect(try sluice.command("flush").code == 0)
        let rows = try SQLiteQuery(path: path).rows("SELECT id FROM counters ORDER BY id")
        #expect(rows == [["a"], ["before"]], "\(sluice.log)")
        sluice.stop(SIGTERM)
        // Without trust in the certificate, or with a wrong password, it says so and stops or waits.
        let text = try String(
            contentsOf: folder.url.appending(path: "sluice.yaml"), encoding: .utf8)
        let wrong = try SluiceProcess(
            in: folder.url,
            configuration: text.components(separatedBy: "\nadmin:")[0]
                .replacingOccurrences(of: ":secret@", with: ":wrong@"))
        let result = try SluiceProcess.run(
            ["run", "--config", folder.url.appending(path: "sluice.yaml").path], in: folder.url)
        #expect(result.code == 77, "\(result.output)")
        #expect(result.output.contains("user or password"))
        #expect(!result.output.contains("wrong@"))
        _ = wrong
    }

    @Test("a user who may not PSYNC is told which permission is missing")
    func forbidden() async throws {
        let bench = try await Bench(.sqlite)
        let client = try await bench.redis.connect()
        try await client.send(["ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-psync"])
        let text = try String(
            contentsOf: bench.folder.url.appending(path: "sluice.yaml"), encoding: .utf8
        )
        .replacingOccurrences(of: "redis://127", with: "redis://app:pw@127")
        let file = bench.folder.url.appending(path: "app.yaml")
        try text.write(to: file, atomically: true, encoding: .utf8)
        for command in ["run", "check"] {
            let result = try SluiceProcess.run(
                [command, "--config", file.path], in: bench.folder.url)
            #expect(result.code != 0)
            #expect(result.output.lowercased().contains("psync"), "\(result.output)")
        }
    }

    @Test(
        "a writer that was overtaken starts again from the database",
        arguments: DatabaseKind.allCases)
    func fenced(kind: DatabaseKind) async throws {
        let bench = try await Bench(kind)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.send("INCR", "c:a")
        try bench.flush()
        let sql = "UPDATE sluice_position SET epoch = epoch + 1"
        if bench.postgres != nil {
            _ = try bench.query(sql)
        } else {
            let path = bench.folder.url.appending(path: "test.db").path
            let shell = try ServerProcess(
                [
                    "python3", "-c",
                    "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); "
                        + "c.execute(sys.argv[2]); c.commit()", path, sql,
                ], log: bench.folder.url.appending(path: "python.log"))
            shell.wait()
        }
        try await client.sendAll((0..<100).map { ["INCRBY", "c:\($0 % 3)", "2"] })
        let isAgain = await Eventually.holds {
            bench.sluice.log.components(separatedBy: "Following").count > 2
        }
        #expect(isAgain, "\(bench.sluice.log)")
        try bench.flush()
        try await bench.expectEqual()
        #expect(bench.sluice.stop(SIGTERM) == 0)
    }

    @Test("it attaches to a Redis with the default delay of snapshots, and WAIT does not lie then")
    func defaultDelay() async throws {
        let bench = try await Bench(
            .sqlite,
            redisOptions: ["--repl-diskless-sync-delay", "5", "--appendonly", "yes"])
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.sendAll((0..<3_000).map { ["INCR", "c:\($0 % 9)"] })
        try bench.flush()
        // A restart from the AOF is a new history, in which nothing is acknowledged yet.
        bench.redis.stop(SIGKILL)
        try await bench.redis.start()
        let again = try await bench.redis.connect()
        // Before the first replica asks, Redis counts no offset that a WAIT could wait for.
        let isCounting = await Eventually.holds {
            (try? await again.send("INFO", "replication").first??.contains("slave0:")) == true
        }
        #expect(isCounting, "\(bench.sluice.log)")
        try await again.send("INCR", "c:0")
        #expect(try await again.send("WAIT", "1", "500") == ["0"])
        #expect(try await again.send("WAIT", "1", "20000") == ["1"])
        try await bench.expectEqual()
    }

    @Test("a FAILOVER without a target takes the real replica, when a byte is held back")
    func holdBack() async throws {
        let bench = try await Bench(.sqlite, redisSettings: "\n  hold_back: true")
        let replica = try await RedisServer(
            in: bench.folder.url, options: ["--replicaof", "127.0.0.1", "\(bench.redis.port)"])
        try await bench.start()
        let client = try await bench.redis.connect()
        let isAttached = await Eventually.holds {
            (try? await client.send("WAIT", "2", "100")) == ["2"]
        }
        #expect(isAttached, "\(bench.sluice.log)")
        for number in 0..<20 {
            try await client.send("INCR", "c:a")
            #expect(try await client.send("WAIT", "2", "3000") == ["2"])
            #expect(try bench.number("SELECT value FROM counters") == number + 1)
        }
        #expect(try await client.send("FAILOVER", "TIMEOUT", "10000") == ["OK"])
        let other = try await replica.connect()
        let isMaster = await Eventually.holds {
            (try? await other.send("ROLE").first) == "master"
        }
        #expect(isMaster, "\(bench.sluice.log)")
    }
}
