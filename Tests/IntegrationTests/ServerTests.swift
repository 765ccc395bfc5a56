import Foundation
import SluiceTesting
import Testing

@Suite("Every server and command", .serialized)
struct ServerTests {
    /// A whole database, where each removal deletes, so that the tables equal Redis after each case.
    static func mirror(_ folder: URL) throws -> String {
        let text = try SluiceProcess.run(["schema", "--mirror"], in: folder).output
        let tables = String(text[(text.range(of: "tables:")?.lowerBound ?? text.startIndex)...])
        let all = "on_expire: delete\n    on_evict: delete\n    on_flush: delete"
        return tables.replacing("on_expire: delete", with: all)
    }

    @Test("each server that CI needs is there", arguments: ServerKind.supported + [.tooOld])
    func present(kind: ServerKind) async throws {
        let folder = try TemporaryFolder("sluice-server")
        let server = try await RedisServer(in: folder.url, program: [kind.program])
        let info = try await server.connect().send("INFO", "server").first ?? nil
        let fields = (info ?? "").split(whereSeparator: \.isNewline)
            .filter { $0.hasPrefix("redis_version:") || $0.hasPrefix("valkey_version:") }
        print("\(kind): \(fields.joined(separator: ", "))")
        #expect(!fields.isEmpty)
        server.stop()
    }

    @Test("after each command the rows equal Redis", arguments: ServerKind.supported)
    func commands(kind: ServerKind) async throws {
        let folder = try TemporaryFolder("sluice-mirror")
        let bench = try await Bench(
            .sqlite, tables: try Self.mirror(folder.url), interval: "10ms", server: kind)
        try await bench.start()
        let client = try await bench.redis.connect()
        var ran = 0
        for line in try Self.cases() {
            let parts = line.components(separatedBy: "[after ")
            let before = parts.count > 1 ? parts[1].dropLast().components(separatedBy: " | ") : []
            try await client.send("FLUSHALL")
            for command in before { try await client.send(Self.words(command)) }
            // So that nothing but the command itself is to be settled after it.
            if !before.isEmpty { try await client.send("WAIT", "1", "5000") }
            let reply = try await client.send(Self.words(parts[0]))
            if reply.first??.hasPrefix("ERROR ERR unknown command") == true { continue }
            ran += 1
            try bench.flush()
            try await bench.expectEqual("\(kind): \(line)")
        }
        print("\(kind): \(ran) cases")
        #expect(ran > 200)
        #expect(await bench.counter("setAside") == 0, "\(bench.sluice.log.suffix(2_000))")
    }

    @Test("no write command of any server is without a case", arguments: ServerKind.supported)
    func coverage(kind: ServerKind) async throws {
        let folder = try TemporaryFolder("sluice-server")
        let server = try await RedisServer(in: folder.url, program: [kind.program])
        defer { server.stop() }
        let client = try await server.connect()
        let writing = try await client.send("COMMAND", "LIST", "FILTERBY", "ACLCAT", "write")
            .compactMap { $0?.split(separator: "|").first.map(String.init) }
        let covered = Set(
            try Self.cases().flatMap { line in
                line.replacing("[after", with: "|").components(separatedBy: "|").compactMap {
                    Self.words($0).first?.lowercased()
                }
            })
        let missing = Set(writing).subtracting(covered).subtracting(Self.elsewhere)
        #expect(missing.isEmpty, "\(kind): \(missing.sorted())")
    }

    /// Commands that other tests have, or that a case can't have.
    static let elsewhere: Set = [
        // Tested below; servers of a cluster; other names for commands that have cases.
        "swapdb", "function", "restore", "restore-asking", "migrate", "trimslots", "fcall",
        "pfselftest", "flushslot", "cluster",
    ]

    @Test("RESTORE, functions, SWAPDB and transactions", arguments: ServerKind.supported)
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
            try await client.send(Self.words(command))
        }
        try bench.flush()
        try await bench.expectEqual("\(kind): SELECT inside MULTI")
        #expect(try bench.query("SELECT value FROM strings WHERE key = 'a'") == [["2"]])
        try await client.send("SWAPDB", "0", "3")
        let isRead = await Eventually.holds {
            guard (try? bench.flush()) != nil else { return false }
            return (try? bench.query("SELECT value FROM strings WHERE key = 'a'")) == [["2"]]
        }
        #expect(isRead, "\(kind): SWAPDB \(bench.sluice.log)")
        try await client.send("SET", "a", "after")
        try bench.flush()
        #expect(try bench.query("SELECT value FROM strings WHERE key = 'a'") == [["after"]])
    }

    @Test("a server that is too old, a replica and a cluster node are refused with what to do")
    func refused() async throws {
        try await expectRefusal(["too old", "Redis 7.0 or later"], .tooOld, [])
        try await expectRefusal(
            ["cluster", "without cluster-enabled"], ServerKind.supported[0],
            ["--cluster-enabled", "yes", "--cluster-port", "\(try FreePort.find())"])
        let folder = try TemporaryFolder("sluice-master")
        let master = try await RedisServer(in: folder.url)
        defer { master.stop() }
        try await expectRefusal(
            ["replica", "follow its master"], ServerKind.supported[0],
            ["--replicaof", "127.0.0.1 \(master.port)"])
    }

    private func expectRefusal(
        _ texts: [String], _ kind: ServerKind, _ options: [String],
    ) async throws {
        let bench = try await Bench(.sqlite, redisOptions: options, server: kind)
        try bench.sluice.start()
        #expect(bench.sluice.wait() != 0)
        for text in texts { #expect(bench.sluice.log.contains(text), "\(bench.sluice.log)") }
    }

    static func words(_ line: String) -> [String] {
        line.split(separator: " ").map { $0 == "\"\"" ? "" : String($0) }
    }

    static func cases() throws -> [String] {
        guard
            let file = Bundle.module.url(
                forResource: "commands", withExtension: "txt", subdirectory: "Resources")
        else { throw CocoaError(.fileNoSuchFile) }
        return try String(contentsOf: file, encoding: .utf8).split(separator: "\n")
            .filter { !$0.hasPrefix("#") }.map { $0.trimmingCharacters(in: .whitespaces) }
    }
}
