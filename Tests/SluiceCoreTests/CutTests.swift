import Foundation
import SluiceCore
import SluiceTesting
import Testing

/// Where a batch ends is nobody's concern: a cut after each command makes the rows that one at the end
/// makes, or any others between.
@Suite("Cuts")
struct CutTests {
    private static func mappings(_ name: String) -> [TableMapping] {
        ModelTraffic.mappings.filter { $0.name == name }
    }
    private static let totals = [
        TableMapping(
            name: "totals", keys: mappings("sessions")[0].keys, type: .hash,
            fields: [Array("n".utf8), Array("m".utf8)],
            columns: [Column(name: "n", type: .integer), Column(name: "m", type: .integer)])
    ]

    struct Setting: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let mappings: [TableMapping]
        let key: String
        let changes: [String]

        static let all = [
            Setting(
                testDescription: "hashes with a rest", mappings: CutTests.mappings("sessions"),
                key: "h:a",
                changes: [
                    "HINCRBY h:a n 5", "HINCRBY h:a n 7", "HSET h:a name y", "HSET h:a other 1",
                    "HSET h:a more 2", "HSET h:a n 3",
                ]),
            Setting(
                testDescription: "hashes of two totals", mappings: CutTests.totals, key: "h:a",
                changes: [
                    "HINCRBY h:a n 5", "HINCRBY h:a m 7", "HSET h:a n 3", "HSET h:a m 2",
                    "HSET h:a other 1", "HINCRBY h:a other 1",
                ]),
            Setting(
                testDescription: "counters", mappings: CutTests.mappings("counters"), key: "c:a",
                changes: ["INCRBY c:a 5", "INCRBY c:a 7", "SET c:a 3", "SET c:a 4 KEEPTTL"]),
        ]
    }

    private typealias Step = (line: String, cause: RemovalCause?)

    // Commands on one key as a server could have sent them.
    private static func steps(_ setting: Setting, _ random: inout SplitMix64) -> [Step] {
        var steps: [Step] = []
        var isThere = false
        for _ in 0..<random.pick(3..<9) {
            switch random.pick(0..<10) {
            case ..<2 where isThere:
                let cause: RemovalCause? = [.expired, .expired, .deleted, nil][random.pick(0..<4)]
                steps.append(("DEL \(setting.key)", cause))
                isThere = false
            case 2 where isThere:
                steps.append(("FLUSHALL", .deleted))
                isThere = false
            case 3 where isThere:
                steps.append(("PEXPIREAT \(setting.key) 3000000000000", .deleted))
            default:
                let change = setting.changes[random.pick(0..<setting.changes.count)]
                steps.append((change, .deleted))
                isThere = true
            }
        }
        return steps
    }

    // Nil when something was to be read, or was set aside: that is for others to test.
    private static func run(
        _ setting: Setting, _ steps: [Step], cuts: [Bool],
    ) -> ModelDatabase? {
        var database = ModelDatabase(mappings: setting.mappings)
        let driver = MachineDriver(setting.mappings)
        for (index, step) in steps.enumerated() {
            driver.send(step.line, step.cause)
            guard cuts[index] || index == steps.count - 1 else { continue }
            let batch = driver.cut { database.apply($0.tables) }
            if batch?.deadLetters.isEmpty == false || driver.machine.opaqueCount > 0 { return nil }
        }
        return database
    }

    @Test("where a batch ends makes no difference", arguments: Setting.all)
    func anywhere(setting: Setting) {
        let seed =
            ProcessInfo.processInfo.environment["SLUICE_SEED"].flatMap { UInt64($0) }
            ?? UInt64.random(in: 0..<1_000_000)
        var random = SplitMix64(seed: seed)
        var compared = 0
        for _ in 0..<4_000 {
            let steps = Self.steps(setting, &random)
            let cuts = steps.map { _ in random.oneIn(3) }
            guard let each = Self.run(setting, steps, cuts: steps.map { _ in true }),
                let some = Self.run(setting, steps, cuts: cuts)
            else { continue }
            compared += 1
            let rows = Set(each.tables[0].keys).union(some.tables[0].keys)
            #expect(
                each.tables[0] == some.tables[0]
                    && rows.allSatisfy { each.kept(0, $0) == some.kept(0, $0) },
                """
                seed \(seed): \(zip(steps, cuts).map { "\($0)\($1 ? " |" : "")" })
                \(each.tables[0]) is not \(some.tables[0])
                """)
        }
        #expect(compared > 3_000)
    }

    @Test("a hash that comes back by an add of a field that no column takes keeps its totals")
    func unmappedAdd() {
        var database = ModelDatabase(mappings: Self.totals)
        let driver = MachineDriver(Self.totals)
        let first: [Step] = [("HINCRBY h:a n 10", .deleted), ("DEL h:a", .expired)]
        for step in first { driver.send(step.line, step.cause) }
        _ = driver.cut { database.apply($0.tables) }
        for line in ["HINCRBY h:a other 1", "HINCRBY h:a n 5"] { driver.send(line) }
        _ = driver.cut { database.apply($0.tables) }
        #expect(database.tables[0].values.first == [.integer(15), .null])
    }

    @Test("a counter that was read after a flush goes on when its key expires before the cut")
    func readAfterFlush() throws {
        var database = ModelDatabase(mappings: Self.mappings("counters"))
        let driver = MachineDriver(Self.mappings("counters"), isNew: true)
        driver.scan(["c:a"])
        // A row without a key has the table read before each change.
        _ = driver.endBaseline(
            .single(Array("10".utf8)), missing: [RowIdentity(key: Array("c:gone".utf8))],
            apply: { database.apply($0.tables) })
        driver.send("FLUSHALL")
        driver.send("INCRBY c:a 5")
        try driver.read(.single(Array("5".utf8)), after: [])
        driver.send("DEL c:a", .expired)
        _ = driver.cut { database.apply($0.tables) }
        #expect(database.tables[0][RowIdentity(key: Array("c:a".utf8))]?.first == .integer(15))
    }

    @Test("a score that outlived its key goes on, whether or not a later key was trimmed")
    func trimmedBetween() throws {
        let scores = Self.mappings("scores")
        for isTrimmed in [false, true] {
            var database = ModelDatabase(mappings: scores)
            let driver = MachineDriver(scores)
            for (line, cause) in [
                ("ZADD z:a 3 m", .deleted), ("DEL z:a", .expired), ("ZADD z:a 1 a 1 b", .deleted),
            ] as [Step] {
                driver.send(line, cause)
                _ = driver.cut { database.apply($0.tables) }
            }
            if isTrimmed {
                driver.send("ZPOPMIN z:a")
                let rest = ReadValue.page([Array("b".utf8), [0x31]], next: Array("0".utf8))
                try driver.read(rest, after: [])
                _ = driver.cut { database.apply($0.tables) }
            }
            driver.send("ZINCRBY z:a 5 m")
            _ = driver.cut { database.apply($0.tables) }
            let row = RowIdentity(key: Array("z:a".utf8), member: Array("m".utf8))
            #expect(database.tables[0][row] == [.real(8)], "trimmed: \(isTrimmed)")
        }
    }

    /// The second add of a batch to a score that is not known has it read.
    @Test(
        "scores that outlived their key go on, however many adds come in a batch, and wherever it goes",
        arguments: [0, 1, 2, 3], [1, 2, 3])
    func scoresGoOn(before: Int, after: Int) throws {
        let scores = Self.mappings("scores")
        var database = ModelDatabase(mappings: scores)
        let first = MachineDriver(scores)
        first.send("ZADD z:a 100 m")
        _ = first.cut { database.apply($0.tables) }
        // This one knows no row.
        let driver = MachineDriver(scores)
        for _ in 0..<before { driver.send("ZINCRBY z:a 5 m") }
        driver.send("DEL z:a", .expired)
        var total = 0
        for add in 0..<after * 2 {
            driver.send("ZINCRBY z:a 5 m")
            total += 5
            // Once more in another batch.
            guard add % after == after - 1 else { continue }
            let batches = driver.settle(.single(Array("\(total)".utf8)))
            #expect(!batches.isEmpty && batches.allSatisfy { $0.deadLetters.isEmpty })
            for batch in batches { database.apply(batch.tables) }
        }
        let row = RowIdentity(key: Array("z:a".utf8), member: Array("m".utf8))
        #expect(database.tables[0][row] == [.real(100 + Double(5 * before + total))])
        #expect(database.kept(0, row) == .back)
        #expect(driver.machine.counters.vanished == 0)
    }

    @Test("a score that did not outlive its key is what Redis has, to the last digit")
    func scoreAsRead() throws {
        let scores = Self.mappings("scores")
        var database = ModelDatabase(mappings: scores)
        let first = MachineDriver(scores)
        var total = 0.1
        first.send("ZADD z:a 0.1 m")
        for batch in first.settle(nil) { database.apply(batch.tables) }
        let driver = MachineDriver(scores)
        for _ in 0..<5 {
            for _ in 0..<3 {
                driver.send("ZINCRBY z:a 0.7 m")
                total += 0.7
            }
            for batch in driver.settle(.single(Array("\(total)".utf8))) {
                database.apply(batch.tables)
            }
        }
        let row = RowIdentity(key: Array("z:a".utf8), member: Array("m".utf8))
        #expect(database.tables[0][row] == [.real(total)])
        #expect(driver.machine.counters.reads == 1)
    }

    @Test(
        "a hash that was flushed does not get the deadline of another type's key",
        arguments: [false, true])
    func deadlineOfAnother(isGone: Bool) throws {
        let shared = ModelTraffic.mappings.filter { $0.name.hasPrefix("shared_") }
        var database = ModelDatabase(mappings: shared)
        let driver = MachineDriver(shared)
        driver.send("HSET y:a n 1")
        _ = driver.cut { database.apply($0.tables) }
        driver.send("FLUSHALL")
        driver.send("ZADD y:a 1 m")
        driver.send("PEXPIREAT y:a 3000000000000")
        if isGone { driver.send("DEL y:a", .expired) }
        _ = driver.cut { database.apply($0.tables) }
        let table = try #require(shared.firstIndex { $0.name.hasSuffix("hashes") })
        #expect(database.tables[table][RowIdentity(key: Array("y:a".utf8))]?.last == .null)
    }
}
