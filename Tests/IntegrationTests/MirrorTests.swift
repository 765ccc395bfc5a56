import Foundation
import SluiceSQLite
import SluiceTesting
import Testing

@Suite("Mirrors", .serialized)
struct MirrorTests {
    /// One run of the trial.
    struct Trial: Sendable, CustomTestStringConvertible {
        let server: ServerKind
        let database: DatabaseKind
        let crashes: Bool
        /// Whether no command hides a type, and what expired is settled before its name is used again.
        var isCertain = false
        var testDescription: String {
            "\(server), \(database), \(crashes ? "with crashes" : "no crash")\(isCertain ? ", no doubt" : "")"
        }
    }

    static let trials = [
        Trial(server: ServerKind.supported[0], database: .sqlite, crashes: true),
        Trial(server: ServerKind.supported[2], database: .postgres, crashes: true),
        Trial(server: ServerKind.supported[1], database: .sqlite, crashes: false),
        Trial(
            server: ServerKind.supported[0], database: .postgres, crashes: false, isCertain: true),
    ]

    @Test("the configuration that is printed mirrors a database as it is")
    func printed() async throws {
        let folder = try TemporaryFolder("sluice-mirror")
        let redis = try await RedisServer(in: folder.url)
        let printed = try SluiceProcess.run(["schema", "--mirror"], in: folder.url)
        let text = printed.output
            .replacing("127.0.0.1:6379", with: "127.0.0.1:\(redis.port)")
            .replacing("sqlite:mirror.db", with: "sqlite:\(folder.url.path)/mirror.db")
        #expect(printed.code == 0 && text != printed.output)
        let client = try await redis.connect()
        for command in [
            "SET a 1", "HSET h f v", "RPUSH l x y", "SADD s m", "ZADD z 1.5 m", "XADD e 1-1 f v",
        ] { try await client.send(CommandCase.words(command)) }
        let sluice = try SluiceProcess(in: folder.url, configuration: text)
        try sluice.start()
        defer { sluice.stop() }
        #expect(
            await Eventually.holds { (try? sluice.command("verify"))?.code == 0 }, "\(sluice.log)")
        // Each goes to the table of another type.
        for command in [
            "RENAME a moved", "SADD a m", "DEL h", "SET h v EX 1000", "SORT l ALPHA STORE s",
            "ZUNIONSTORE l 1 z", "SET z v", "DEL e", "INCR counter",
        ] { try await client.send(CommandCase.words(command)) }
        #expect(try sluice.command("flush").code == 0, "\(sluice.log)")
        let verified = try sluice.command("verify")
        #expect(verified.code == 0, "\(verified.output)")
        let path = folder.url.appending(path: "mirror.db").path
        let counts = try SQLiteQuery(path: path).rows(
            "SELECT (SELECT count(*) FROM strings), (SELECT count(*) FROM hashes), "
                + "(SELECT count(*) FROM lists), (SELECT count(*) FROM sets), "
                + "(SELECT count(*) FROM sorted_sets), (SELECT count(*) FROM streams)")
        // An entry stays when its stream goes.
        #expect(counts == [["4", "0", "1", "1", "1", "1"]])
    }

    /// What became of a key that is gone, no comparison with Redis can say: the client keeps account.
    @Test("whatever takes their names, rows outlive keys that expire", arguments: trials)
    func outlive(trial: Trial) async throws {
        let variables = ProcessInfo.processInfo.environment
        let seed = CrashTests.seed
        let bursts = (variables["SLUICE_STEPS"].flatMap { Int($0) } ?? 2_500) / 10
        var random = SplitMix64(seed: seed)
        let interval = ["20ms", "100ms", "1s"][random.pick(0..<3)]
        let comment = "\(trial.testDescription): seed \(seed), interval \(interval)"
        print(comment)
        let folder = try TemporaryFolder("sluice-mirror")
        let bench = try await Bench(
            trial.database, tables: try Self.tables(folder.url),
            redisOptions: ["--repl-backlog-size", "64mb"], interval: interval,
            server: trial.server)
        try await bench.start()
        let client = MirrorClient(try await bench.redis.connect(), seed: seed) {
            if trial.isCertain { try bench.flush() }
        }
        client.copies = !trial.isCertain
        for round in 0..<5 {
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await client.run(bursts: bursts / 5) }
                if trial.crashes {
                    group.addTask {
                        try await Self.crash(bench.sluice, seed: seed &+ UInt64(round))
                    }
                }
                try await group.next()
                group.cancelAll()
                try await group.waitForAll()
            }
            let isFlushed = await Eventually.holds(within: .seconds(60)) {
                (try? bench.sluice.command("flush"))?.code == 0
            }
            try #require(isFlushed, "\(comment), round \(round) \(bench.sluice.log.suffix(2_000))")
            let wrong = try bench.wrong(client.account)
            let log = bench.sluice.log.split(separator: "\n").filter {
                ["has a gap", "lost", "Following"].contains(where: $0.contains)
            }
            try #require(
                wrong.isEmpty,
                "\(comment), round \(round) \(wrong.prefix(5)) \(log.suffix(12).joined(separator: " | "))"
            )
            let result = try bench.sluice.command("verify")
            try #require(
                result.code == 0, "\(comment), round \(round) \(result.output.prefix(2_000))")
        }
        let due = client.account.due
        let outlived = due.keys.filter { client.account.live[$0.key]?.table != $0.table }
        let extra = try bench.rows().keys.filter { due[$0] == nil }
        print(
            "\(outlived.count) of \(due.count) rows outlived their keys, \(extra.count) more stay, "
                + "\(try bench.deadLetters().count) dead letters")
        #expect(outlived.count > 10)
        // In doubt a row stays; but here is none.
        guard trial.isCertain else { return }
        let doubtful = await bench.counter("doubtful")
        #expect(doubtful == 0 && extra.isEmpty, "\(comment) \(doubtful) \(extra.prefix(5))")
    }

    // A mirror in which what expires stays, and values are texts.
    private static func tables(_ folder: URL) throws -> String {
        let text = try SluiceProcess.run(["schema", "--mirror"], in: folder).output
        let tables = String(text[(text.range(of: "tables:")?.lowerBound ?? text.startIndex)...])
        return tables.replacing("on_expire: delete", with: "on_expire: keep")
            .replacing("value: bytes", with: "value: text")
    }

    // Until it is cancelled.
    private static func crash(_ sluice: SluiceProcess, seed: UInt64) async throws {
        var random = SplitMix64(seed: seed)
        while true {
            do {
                try await Task.sleep(for: .milliseconds(random.pick(100..<1_500)))
            } catch { return }
            sluice.stop()
            try sluice.start()
        }
    }
}

extension Bench {
    /// The rows of a mirror.
    func rows() throws -> [MirrorRow: MirrorValue] {
        var rows: [MirrorRow: MirrorValue] = [:]
        func object(_ text: String?) throws -> Any {
            try JSONSerialization.jsonObject(with: Data((text ?? "").utf8))
        }
        for row in try query("SELECT key, value FROM strings") {
            rows[MirrorRow("strings", row[0] ?? "")] = .string(row[1] ?? "")
        }
        for row in try query("SELECT key, fields FROM hashes") {
            let fields = try object(row[1]) as? [String: String] ?? [:]
            rows[MirrorRow("hashes", row[0] ?? "")] = .members(fields)
        }
        for row in try query("SELECT key, items FROM lists") {
            let items = try object(row[1]) as? [String] ?? []
            rows[MirrorRow("lists", row[0] ?? "")] = .list(items)
        }
        for (table, score) in [("sets", "0"), ("sorted_sets", "score")] {
            for row in try query("SELECT key, member, \(score) FROM \(table)") {
                let score = row[2].flatMap { Double($0) }.map { "\(Int($0))" }
                rows[MirrorRow(table, row[0] ?? "", row[1])] = .string(score ?? "")
            }
        }
        return rows
    }

    /// The rows that are missing or not as the client left them, but for those with dead letters.
    func wrong(_ account: MirrorAccount) throws -> [String] {
        let rows = try rows()
        let letters = try deadLetters()
        let kept = try kept()
        return account.due.compactMap { name, value in
            let found = rows[name]
            let isSetAside = letters.contains {
                $0.table == name.table && $0.key == Array(name.key.utf8)
            }
            if found == value || isSetAside { return nil }
            let kind = account.live[name.key]?.table == name.table ? "live" : "outlived its key"
            let was = found.map { "\($0)" } ?? "missing"
            return
                "\(name) (\(kind)): \(was), not \(value), noted as \(kept["\(name.table) \(name.key)"] ?? []), "
                + "after \(account.history[name.key, default: []].suffix(25))"
        }
    }
}
