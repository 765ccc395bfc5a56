import Foundation
import SluiceConfiguration
import SluiceSQL
import SluiceSQLite
import SluiceTesting
import SluiceVerify
import Testing

/// A master that Sentinels name, and another one after it died.
@Suite("Sentinel", .timeLimit(.minutes(3)))
struct SentinelTests {
    @Test("the master is followed, and its successor goes on in the same stream")
    func failover() async throws {
        let folder = try TemporaryFolder("sluice-sentinel")
        let master = try await RedisServer(in: folder.url)
        let replica = try await RedisServer(
            in: folder.url, options: ["--replicaof", "127.0.0.1", "\(master.port)"])
        let port = try FreePort.find()
        let file = folder.url.appending(path: "sentinel.conf")
        try """
        port \(port)
        bind 127.0.0.1
        dir \(folder.url.path)
        sentinel monitor main 127.0.0.1 \(master.port) 1
        sentinel down-after-milliseconds main 800
        sentinel failover-timeout main 4000
        """.write(to: file, atomically: true, encoding: .utf8)
        let sentinel = try ServerProcess(
            ["redis-server", file.path, "--sentinel"],
            log: folder.url.appending(path: "sentinel.log"))
        defer { sentinel.end() }

        let database = folder.url.appending(path: "test.db").path
        let yaml = """
            redis:
              url: redis+sentinel://127.0.0.1:1,127.0.0.1:\(port)/main
            database:
              url: sqlite:\(database)
            sync: { interval: 100ms }

            """ + Bench.tables
        let configuration = try ConfigurationReader(environment: [:]).read(yaml, file: "test")
        let sluice = try SluiceProcess(in: folder.url, configuration: yaml)
        try sluice.start()
        let client = try await master.connect()
        let isAttached = await Eventually.holds {
            (try? await client.send("WAIT", "2", "100")) == ["2"]
        }
        #expect(isAttached, "\(sluice.log)")
        try await client.sendAll((0..<2_000).map { ["INCR", "c:\($0 % 70)"] })
        // Both have it: Sluice in the database, and the replica that will be the master.
        #expect(try await client.send("WAIT", "2", "5000") == ["2"], "\(sluice.log)")
        try await client.sendAll((0..<500).map { ["INCR", "c:\($0 % 70)"] })
        func gaps() throws -> Int? {
            let text = try sluice.command("status", "--json").output
            let status = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
            return (status?["counters"] as? [String: Any])?["resynchronisations"] as? Int
        }
        let before = try gaps()
        master.stop(SIGKILL)

        // A Sentinel closes the connections to a server that becomes the master.
        let isMaster = await Eventually.holds(within: .seconds(40)) {
            guard let other = try? await replica.connect() else { return false }
            defer { other.close() }
            return (try? await other.send("SET", "c:new", "1")) == ["OK"]
        }
        let log = try String(
            contentsOf: folder.url.appending(path: "sentinel.log"), encoding: .utf8)
        #expect(isMaster, "\(log.suffix(3_000))")
        let other = try await replica.connect()
        try await other.sendAll((0..<2_000).map { ["INCR", "c:\($0 % 70)"] })
        let isFollowed = await Eventually.holds(within: .seconds(40)) {
            (try? sluice.command("flush").code) == 0
        }
        #expect(isFollowed, "\(sluice.log)")
        let verification = Verification(
            mappings: configuration.tables, dialect: .sqlite, source: configuration.name,
            endpoint: replica.endpoint()
        ) { try SQLiteQuery(path: database).rows($0) }
        let outcome = try await verification.run()
        #expect(outcome.differences.isEmpty, "\(outcome.differences.prefix(5)) \(sluice.log)")
        #expect(outcome.compared == 71)
        let after = try gaps()
        #expect(before != nil && after == before, "no gap: \(sluice.log)")
        sluice.stop(SIGTERM)
    }

    @Test("a name that no Sentinel knows is an error that says so")
    func unknownName() async throws {
        let folder = try TemporaryFolder("sluice-sentinel")
        let port = try FreePort.find()
        let file = folder.url.appending(path: "sentinel.conf")
        try "port \(port)\nbind 127.0.0.1\n".write(to: file, atomically: true, encoding: .utf8)
        let sentinel = try ServerProcess(
            ["redis-server", file.path, "--sentinel"],
            log: folder.url.appending(path: "sentinel.log"))
        defer { sentinel.end() }
        let yaml = """
            redis: { url: "redis+sentinel://127.0.0.1:\(port)/nobody" }
            database: { url: "sqlite:\(folder.url.appending(path: "test.db").path)" }

            """ + Bench.tables
        let sluice = try SluiceProcess(in: folder.url, configuration: yaml)
        var checked = (code: Int32(0), output: "")
        let isSaid = await Eventually.holds {
            checked = (try? sluice.command("check")) ?? checked
            return checked.output.contains("knows no master nobody")
        }
        #expect(isSaid && checked.code == 69, "\(checked)")
    }
}
