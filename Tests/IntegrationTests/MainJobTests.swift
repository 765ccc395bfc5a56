import Foundation
import SluiceTesting
import Testing

@Suite("The main job", .serialized)
struct MainJobTests {
    @Test(
        "the four uses settle exactly, and Redis is never read back",
        arguments: DatabaseKind.allCases)
    func fourUses(kind: DatabaseKind) async throws {
        let bench = try await Bench(kind)
        try await bench.start()
        let client = try await bench.redis.connect()
        var commands: [[String]] = []
        for index in 0..<3_000 {
            commands.append(["INCRBY", "c:\(index % 50)", "\(index % 7 - 2)"])
            commands.append([
                "HSET", "session:\(index % 40)", "user_id", "\(index)", "last_seen",
                "\(1_700_000_000 + index)", "cart", "{\"n\":\(index)}", "f\(index % 5)",
                "v\(index)",
            ])
            if index % 9 == 0 { commands.append(["EXPIRE", "session:\(index % 40)", "5000"]) }
            if index % 50 == 0 { commands.append(["PERSIST", "session:\(index % 40)"]) }
            if index % 97 == 0 { commands.append(["DEL", "session:\(index % 40)"]) }
            if index % 111 == 0 { commands.append(["DEL", "z:\(index % 3)"]) }
            commands.append(["ZADD", "z:\(index % 3)", "\(Double(index) / 3)", "p\(index % 60)"])
            if index % 13 == 0 { commands.append(["ZREM", "z:\(index % 3)", "p\(index % 60)"]) }
            commands.append(["XADD", "e:\(index % 2)", "*", "n", "\(index)", "q", "\"é\n"])
        }
        for start in stride(from: 0, to: commands.count, by: 500) {
            let chunk = Array(commands[start..<min(start + 500, commands.count)])
            #expect(try await client.sendAll(chunk) == chunk.count)
        }
        try bench.flush()
        try await bench.expectEqual()
        #expect(await bench.counter("reads") == 0)
        #expect(await bench.counter("baselineReads") == 0)
        let rows = await bench.counter("rows")
        #expect(rows > 0 && rows < commands.count, "writes are folded")
    }

    @Test(
        "a command that does not say its effect is right all the same",
        arguments: DatabaseKind.allCases)
    func opaqueCommands(kind: DatabaseKind) async throws {
        let bench = try await Bench(kind)
        try await bench.start()
        let client = try await bench.redis.connect()
        let commands: [[String]] = [
            ["SET", "t:a", "x"], ["APPEND", "t:a", "yz"], ["SETRANGE", "t:a", "1", "Q"],
            ["INCRBYFLOAT", "t:n", "1.5"], ["SET", "c:a", "5"], ["RENAME", "c:a", "c:b"],
            ["COPY", "c:b", "c:c"], ["GETSET", "c:c", "8"], ["INCR", "c:c"],
            ["SETEX", "t:e", "1000", "v"], ["GETEX", "t:e", "PERSIST"],
            ["MSET", "c:m", "1", "t:m", "2"],
            ["ZADD", "z:a", "1", "m", "2", "n"], ["ZADD", "z:a", "GT", "0", "m", "5", "n"],
            ["ZINCRBY", "z:a", "0.1", "m"], ["ZINCRBY", "z:a", "0.2", "m"],
            ["ZUNIONSTORE", "z:u", "2", "z:a", "z:none"], ["ZPOPMIN", "z:a"],
            ["ZADD", "z:gone", "1", "m"], ["ZPOPMAX", "z:gone"],
            ["SADD", "s:a", "1", "2", "3"], ["SMOVE", "s:a", "s:b", "2"], ["SPOP", "s:a"],
            ["SDIFFSTORE", "s:d", "s:b", "s:none"], ["RPUSH", "l:a", "1", "2", "3"],
            ["LPOP", "l:a"], ["LMOVE", "l:a", "l:b", "LEFT", "RIGHT"], ["LTRIM", "l:b", "5", "9"],
            ["HSET", "session:a", "user_id", "1", "x", "2"], ["HDEL", "session:a", "user_id", "x"],
            ["HSET", "session:b", "user_id", "1", "x", "2"], ["HDEL", "session:b", "x"],
            ["HINCRBY", "session:b", "user_id", "41"], ["HINCRBY", "session:b", "visits", "3"],
            ["HINCRBYFLOAT", "session:b", "ratio", "0.5"], ["PFADD", "hll", "a"],
            ["BITOP", "NOT", "t:bits", "none"], ["SORT", "l:a", "STORE", "l:sorted"],
            ["XADD", "e:a", "1-1", "f", "v"], ["XTRIM", "e:a", "MAXLEN", "5"],
            ["EVAL", "redis.call('set', KEYS[1], 7); redis.call('incr', KEYS[1])", "1", "c:lua"],
            ["SET", "c:dump", "12"], ["SELECT", "1"], ["SET", "c:other", "99"], ["SELECT", "0"],
            ["MOVE", "c:dump", "2"],
        ]
        for command in commands {
            let reply = try await client.send(command)
            #expect(reply.first??.hasPrefix("ERROR") != true, "\(command): \(reply)")
        }
        try bench.flush()
        try await bench.expectEqual()
        // Once more on rows that the database has and the buffer may not.
        for command in [["APPEND", "t:a", "!"], ["ZINCRBY", "z:a", "0.7", "n"], ["DEL", "s:b"]] {
            try await client.send(command)
        }
        try bench.flush()
        try await bench.expectEqual()
    }

    @Test(
        "what is there at first contact, or changed unseen, is read",
        arguments: DatabaseKind.allCases)
    func baseline(kind: DatabaseKind) async throws {
        let bench = try await Bench(kind, redisOptions: ["--enable-debug-command", "yes"])
        let client = try await bench.redis.connect()
        for index in 0..<2_000 {
            try await client.sendAll([
                ["SET", "c:\(index)", "\(index)"], ["HSET", "session:\(index)", "a", "b"],
                ["ZADD", "z:\(index % 10)", "\(index)", "p\(index)"],
                ["XADD", "e:x", "*", "n", "\(index)"], ["SET", "unmapped:\(index)", "x"],
            ])
        }
        try await bench.start()
        try bench.flush()
        try await bench.expectEqual("at first contact")
        // While Sluice is away and the backlog is lost: keys go, change and come.
        bench.sluice.stop(SIGTERM)
        #expect(try await client.send("DEBUG", "CHANGE-REPL-ID") == ["OK"])
        try await client.sendAll([
            ["DEL", "c:1"], ["INCR", "c:2"], ["ZREM", "z:1", "p1"], ["SET", "c:new", "5"],
        ])
        try await bench.start()
        try bench.flush()
        #expect(await bench.counter("missing") == 2, "a counter and a score have no key")
        #expect(try bench.number("SELECT value FROM counters WHERE id = '1'") == 1, "it stays")
        // A row without a key starts afresh when the key comes back.
        try await client.sendAll([["INCR", "c:1"], ["ZADD", "z:1", "3", "p1"]])
        try bench.flush()
        try await bench.expectEqual("after the gap")
    }

    @Test(
        "values that do not fit are set aside, and the rest goes on",
        arguments: DatabaseKind.allCases)
    func misfits(kind: DatabaseKind) async throws {
        let bench = try await Bench(kind)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.sendAll([
            ["SET", "c:word", "word"], ["SET", "session:1", "a string"],
            ["HSET", "c:hash", "a", "b"],
            ["HSET", "session:2", "user_id", "no number"], ["SET", "c:good", "1"],
            ["SET", "t:nul", "a\0b"],
        ])
        try await client.send(bytes: [
            Array("SET".utf8), Array("c:".utf8) + [0xFF], Array("1".utf8),
        ])
        let large = [UInt8](repeating: 0x78, count: 70 << 20)
        try await client.send(bytes: [Array("SET".utf8), Array("t:large".utf8), large])
        try bench.flush()
        #expect(try bench.number("SELECT value FROM counters WHERE id = 'good'") == 1)
        #expect(try bench.number("SELECT count(*) FROM counters") == 1)
        #expect(try bench.number("SELECT count(*) FROM texts") == 0)
        let codes = try bench.query(
            "SELECT code, count(*) FROM sluice_dead_letters GROUP BY code ORDER BY code"
        ).map { "\($0[0] ?? "") \($0[1] ?? "")" }
        #expect(
            codes == [
                "key.form 1", "key.wrong_type 2", "value.text 1", "value.too_large 1",
                "value.type 2",
            ])
        // A value that fits again takes the place of the one that did not.
        try await client.sendAll([
            ["SET", "c:word", "7"], ["HSET", "session:2", "user_id", "8"], ["SET", "t:large", "x"],
            ["DEL", "session:1"], ["DEL", "t:nul"], ["DEL", "c:hash"],
        ])
        try await client.send(bytes: [Array("DEL".utf8), Array("c:".utf8) + [0xFF]])
        try bench.flush()
        try await bench.expectEqual()
        let left = try bench.number(
            "SELECT count(*) FROM sluice_dead_letters WHERE code <> 'key.form'")
        #expect(left == 0)
    }

    @Test(
        "a row that the database itself refuses is set aside alone",
        arguments: DatabaseKind.allCases)
    func refusals(kind: DatabaseKind) async throws {
        let bench = try await Bench(
            kind,
            tables: """
                tables:
                  counters:
                    keys: "c:<id>"
                    string: { value: integer }
                """)
        try await bench.start()
        bench.sluice.stop(SIGTERM)
        let check = "CREATE TABLE counters (id text PRIMARY KEY, value bigint CHECK (value < 1000))"
        if bench.postgres != nil {
            _ = try bench.query("DROP TABLE counters")
            _ = try bench.query(check)
        } else {
            for sql in ["DROP TABLE counters", check] {
                let path = bench.folder.url.appending(path: "test.db").path
                let shell = try ServerProcess(
                    [
                        "python3", "-c",
                        "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); "
                            + "c.execute(sys.argv[2]); c.commit()", path, sql,
                    ],
                    log: bench.folder.url.appending(path: "python.log"))
                shell.wait()
                #expect(shell.exitCode == 0)
            }
        }
        try await bench.start()
        let client = try await bench.redis.connect()
        let commands = (0..<500).map { ["SET", "c:\($0)", $0 == 250 ? "5000" : "\($0)"] }
        try await client.sendAll(commands)
        try bench.flush()
        let count = try bench.number("SELECT count(*) FROM counters")
        #expect(count == 499)
        #expect(try bench.number("SELECT count(*) FROM sluice_dead_letters") == 1)
        try await client.send("DECRBY", "c:250", "4500")
        try bench.flush()
        #expect(try bench.number("SELECT value FROM counters WHERE id = '250'") == 500)
        #expect(try bench.number("SELECT count(*) FROM sluice_dead_letters") == 0)
    }

    @Test(
        "an entry whose identifier is used again is parked, not dropped",
        arguments: DatabaseKind.allCases)
    func reusedIdentifiers(kind: DatabaseKind) async throws {
        let bench = try await Bench(kind)
        try await bench.start()
        let client = try await bench.redis.connect()
        try await client.sendAll([
            ["XADD", "e:a", "1-1", "v", "old"], ["XADD", "e:a", "2-1", "v", "2"],
        ])
        try bench.flush()
        try await client.sendAll([
            ["DEL", "e:a"], ["XADD", "e:a", "1-1", "v", "new"], ["XADD", "e:a", "2-1", "v", "2"],
        ])
        try bench.flush()
        let letters = try bench.query("SELECT code FROM sluice_dead_letters")
        #expect(letters == [["stream.id_reused"]])
        #expect(try bench.number("SELECT count(*) FROM events") == 2)
    }
}
