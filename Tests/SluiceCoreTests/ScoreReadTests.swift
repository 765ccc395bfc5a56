import SluiceCore
import SluiceTesting
import Testing

/// A score to which more than one add came is read, at a place that the stream has not come to: what
/// stands before that, and what comes between, must be in its total once.
@Suite("Scores that are read")
struct ScoreReadTests {
    private static let scores = ModelTraffic.mappings.filter { $0.name == "scores" }
    private static let row = RowIdentity(key: Array("z:a".utf8), member: Array("m".utf8))

    private static func one(_ score: Int) -> ReadValue { .single(Array("\(score)".utf8)) }

    static func policies(_ removal: RemovalPolicies) -> [TableMapping] {
        scores.map {
            TableMapping(
                name: $0.name, keys: $0.keys, type: $0.type, columns: $0.values, member: $0.member,
                removal: removal)
        }
    }

    /// A database with a score of 100, whose key has expired if that is wanted, and a machine that does
    /// not know it and was told to add 5, twice if not said otherwise.
    private static func world(
        _ scores: [TableMapping] = scores, outlived: Bool = true, adds: Int = 2,
    ) -> (driver: MachineDriver, database: ModelDatabase) {
        var database = ModelDatabase(mappings: scores)
        let first = MachineDriver(scores)
        first.send("ZADD z:a 100 m")
        _ = first.cut { database.apply($0.tables) }
        if outlived {
            first.send("DEL z:a", .expired)
            _ = first.cut { database.apply($0.tables) }
        }
        let driver = MachineDriver(scores)
        for _ in 0..<adds { driver.send("ZINCRBY z:a 5 m") }
        return (driver, database)
    }

    @Test("a gap loses nothing of it", arguments: [false, true])
    func gap(outlived: Bool) throws {
        for isRead in [false, true] {
            var (driver, database) = Self.world(outlived: outlived)
            if isRead { try driver.read(Self.one(outlived ? 10 : 110), after: ["PING"]) }
            driver.resynchronise()
            _ = driver.cut { database.apply($0.tables) }
            #expect(database.tables[0][Self.row] == [.real(110)], "read: \(isRead)")
        }
    }

    @Test(
        "what the application removed or replaced before the read does not come back",
        arguments: ["DEL z:a", "RENAME z:a q:b", "ZREM z:a m", "FLUSHALL", "ZADD z:a GT 0 m"])
    func removedBeforeRead(removal: String) throws {
        let deleting = Self.policies(RemovalPolicies(onFlush: .delete))
        var (driver, database) = Self.world(removal == "FLUSHALL" ? deleting : Self.scores)
        let add = removal.hasPrefix("ZADD") ? "PING" : "ZINCRBY z:a 7 m"
        if add == "PING" { driver.send(removal) }
        try driver.read(Self.one(7), after: add == "PING" ? [] : [removal, add])
        if add != "PING" { driver.send(removal) }
        driver.send(add)
        _ = driver.cut { database.apply($0.tables) }
        #expect(database.tables[0][Self.row] == [.real(7)])
    }

    @Test("a member that was removed before the read goes, though its key expires then")
    func removedAndMissing() throws {
        var (driver, database) = Self.world()
        try driver.read(.missing, type: nil, after: ["ZREM z:a m"], until: ["DEL z:a"])
        driver.send("ZREM z:a m")
        driver.send("DEL z:a", .expired)
        let batch = driver.cut { database.apply($0.tables) }
        #expect(database.tables[0][Self.row] == nil)
        #expect(batch?.deadLetters.isEmpty == true)
    }

    @Test("where what is removed stays, so do its points", arguments: [false, true])
    func removedAndKept(outlived: Bool) throws {
        let keeping = Self.policies(RemovalPolicies(onDelete: .keep))
        var (driver, database) = Self.world(keeping, outlived: outlived)
        try driver.read(Self.one(7), after: ["ZREM z:a m", "ZINCRBY z:a 7 m"])
        driver.send("ZREM z:a m")
        driver.send("ZINCRBY z:a 7 m")
        _ = driver.cut { database.apply($0.tables) }
        #expect(database.tables[0][Self.row] == [.real(117)])
    }

    @Test("a drain comes to its end, and another instance goes on", arguments: [false, true])
    func drained(outlived: Bool) throws {
        for adds in [0, 2] {
            var (driver, database) = Self.world(outlived: outlived, adds: adds)
            let total = (outlived ? 0 : 100) + 5 * adds
            if adds == 0 { driver.lookAgain(Self.row, table: "scores") }
            try driver.read(Self.one(total + 7), after: ["ZINCRBY z:a 7 m"])
            var loose: [LooseRow] = []
            let isDone = driver.drain { batch in
                database.apply(batch.tables)
                loose = batch.loose ?? loose
            }
            #expect(isDone, "adds: \(adds)")
            let next = MachineDriver(Self.scores, loose: loose)
            next.send("ZINCRBY z:a 7 m")
            for batch in next.settle(Self.one(total + 7)) { database.apply(batch.tables) }
            #expect(
                database.tables[0][Self.row] == [.real(107 + Double(5 * adds))], "adds: \(adds)")
        }
    }

    @Test("a score that came back while nobody looked is added once it is looked for")
    func lookedFor() throws {
        var (driver, database) = Self.world(adds: 0)
        driver.lookAgain(Self.row, table: "scores")
        for batch in driver.settle(Self.one(5)) { database.apply(batch.tables) }
        #expect(database.tables[0][Self.row] == [.real(105)])
    }

    @Test("what comes between is added once, though a batch ends before the place of the read")
    func cutBeforeRead() throws {
        var (driver, database) = Self.world()
        try driver.read(Self.one(17), after: ["ZINCRBY z:a 7 m"])
        _ = driver.cut(isLate: true) { database.apply($0.tables) }
        #expect(database.tables[0][Self.row] == [.real(110)])
        driver.send("ZINCRBY z:a 7 m")
        for batch in driver.settle(Self.one(17)) { database.apply(batch.tables) }
        #expect(database.tables[0][Self.row] == [.real(117)])
    }

    @Test(
        "the key's first expiry between a batch's end and the place of the read takes no point along"
    )
    func cutBeforeExpiry() throws {
        var (driver, database) = Self.world(outlived: false)
        let stream = ["ZINCRBY z:a 1 m", "DEL z:a", "ZINCRBY z:a 3 m"]
        try driver.read(Self.one(3), after: stream)
        _ = driver.cut(isLate: true) { database.apply($0.tables) }
        #expect(database.tables[0][Self.row] == [.real(110)])
        for line in stream { driver.send(line, .expired) }
        for batch in driver.settle(Self.one(3)) { database.apply(batch.tables) }
        #expect(database.tables[0][Self.row] == [.real(114)])
    }

    @Test("what the database refuses of it is added with what comes next")
    func refused() throws {
        let (driver, _) = Self.world()
        try driver.read(Self.one(10), after: [])
        let column = Self.scores[0].values[0].name
        let letter = DeadLetter(
            table: "scores", identity: Self.row, operation: .merge,
            value: Array("{\"\(column)\":{\"add\":\"10.0\"}}".utf8), code: "refused", message: "")
        _ = driver.cut { _ in [letter] }
        driver.send("ZINCRBY z:a 3 m")
        let batch = try #require(driver.cut())
        #expect(batch.tables[0].sparedReals == [13])
    }

    @Test("a key that expires before and after the read keeps every point")
    func twice() throws {
        var (driver, database) = Self.world(outlived: false)
        try driver.read(Self.one(3), after: ["DEL z:a", "ZINCRBY z:a 3 m"])
        driver.send("DEL z:a", .expired)
        driver.send("ZINCRBY z:a 3 m")
        driver.send("DEL z:a", .expired)
        _ = driver.cut { database.apply($0.tables) }
        #expect(database.tables[0][Self.row] == [.real(113)])
        #expect(driver.machine.counters.vanished == 0)
    }

    /// The changes between are in what was read, and what was read is of the last key.
    @Test(
        "a key that goes twice before the place of the read keeps every point, and what is read of the last",
        arguments: ["FLUSHALL", "DEL z:a"])
    func twiceBeforeRead(removal: String) throws {
        var (driver, database) = Self.world(outlived: false)
        let stream = [removal, "ZINCRBY z:a 2 m", removal, "ZINCRBY z:a 3 m"]
        try driver.read(Self.one(3), after: stream)
        for line in stream { driver.send(line, .expired) }
        for batch in driver.settle(Self.one(3)) { database.apply(batch.tables) }
        #expect(database.tables[0][Self.row] == [.real(115)])
        #expect(driver.machine.counters.vanished == 0)
    }

    @Test("a key that goes before the place of a read of as many points as were counted")
    func sameSum() throws {
        var database = Self.world(outlived: false).database
        let driver = MachineDriver(Self.scores)
        driver.send("DEL z:a", .expired)
        for _ in 0..<2 { driver.send("ZINCRBY z:a 5 m") }
        try driver.read(Self.one(10), after: ["DEL z:a", "ZINCRBY z:a 10 m"])
        driver.send("DEL z:a", .expired)
        driver.send("ZINCRBY z:a 10 m")
        for batch in driver.settle(Self.one(10)) { database.apply(batch.tables) }
        #expect(database.tables[0][Self.row] == [.real(120)])
    }

    @Test(
        "what outlived its key goes on, though the key that came is trimmed before it comes back",
        arguments: [false, true])
    func trimmed(isKnown: Bool) throws {
        var database = ModelDatabase(mappings: Self.scores)
        let first = MachineDriver(Self.scores)
        first.send("ZADD z:a 100 m")
        _ = first.cut { database.apply($0.tables) }
        first.send("DEL z:a", .expired)
        _ = first.cut { database.apply($0.tables) }
        let driver = isKnown ? first : MachineDriver(Self.scores)
        driver.send("ZADD z:a 1 n")
        driver.send("ZADD z:a 2 o")
        driver.send("ZPOPMIN z:a")
        let rest = ReadValue.page([Array("o".utf8), Array("2".utf8)], next: Array("0".utf8))
        try driver.read(rest, after: [])
        driver.send("ZINCRBY z:a 5 m")
        driver.send("ZINCRBY z:a 7 n")
        _ = driver.cut { database.apply($0.tables) }
        #expect(database.tables[0][Self.row] == [.real(105)])
        let trimmed = RowIdentity(key: Self.row.key, member: Array("n".utf8))
        #expect(database.tables[0][trimmed] == [.real(7)])
    }

    @Test("what came back and is trimmed starts afresh")
    func trimmedAfterReturn() throws {
        var (driver, database) = Self.world()
        try driver.read(Self.one(10), after: [])
        _ = driver.cut { database.apply($0.tables) }
        #expect(database.tables[0][Self.row] == [.real(110)])
        driver.send("ZADD z:a 20 o")
        driver.send("ZPOPMIN z:a")
        let rest = ReadValue.page([Array("o".utf8), Array("20".utf8)], next: Array("0".utf8))
        try driver.read(rest, after: [])
        driver.send("ZINCRBY z:a 5 m")
        _ = driver.cut { database.apply($0.tables) }
        #expect(database.tables[0][Self.row] == [.real(5)])
    }

    @Test("what had come back, and is kept in doubt then, starts afresh")
    func doubtAfterReturn() throws {
        var (driver, database) = Self.world(adds: 1)
        _ = driver.cut { database.apply($0.tables) }
        #expect(database.kept(0, Self.row) == .back)
        driver.send("DEL z:b")
        driver.send("DEL z:a", nil)
        driver.send("DEL z:b")
        for _ in 0..<2 { driver.send("ZINCRBY z:a 5 m") }
        try driver.read(Self.one(10), after: [])
        driver.send("DEL z:a", .expired)
        _ = driver.cut { database.apply($0.tables) }
        #expect(database.tables[0][Self.row] == [.real(10)])
    }

    @Test("what was kept in doubt starts afresh, though the key goes again before the cut")
    func doubt() {
        var database = Self.world(outlived: false).database
        let driver = MachineDriver(Self.scores)
        driver.send("DEL z:a", nil)
        // From here on the events can be relied on.
        driver.send("DEL z:b")
        for _ in 0..<2 { driver.send("ZINCRBY z:a 5 m") }
        driver.send("DEL z:a", .expired)
        _ = driver.cut { database.apply($0.tables) }
        #expect(database.tables[0][Self.row] == [.real(10)])
    }

    @Test(
        "a score that was still to be read when the instance ended goes on",
        arguments: [false, true])
    func restart(outlived: Bool) throws {
        var (driver, database) = Self.world(outlived: outlived)
        let late = driver.cut(isLate: true) { database.apply($0.tables) }
        let next = MachineDriver(Self.scores, loose: try #require(late?.loose))
        for batch in next.settle(Self.one(outlived ? 10 : 110)) { database.apply(batch.tables) }
        #expect(database.tables[0][Self.row] == [.real(110)])
        next.send("ZINCRBY z:a 1 m")
        for batch in next.settle(nil) { database.apply(batch.tables) }
        #expect(database.tables[0][Self.row] == [.real(111)])
    }

    @Test("what was written of a score that is still to be read needs no letter when its key goes")
    func goneAfterCut() throws {
        var (driver, database) = Self.world(outlived: false)
        _ = driver.cut(isLate: true) { database.apply($0.tables) }
        driver.send("DEL z:a", .expired)
        let batch = driver.cut { database.apply($0.tables) }
        #expect(database.tables[0][Self.row] == [.real(110)])
        #expect(batch?.deadLetters.isEmpty == true)
    }

    /// What had made it so may have been anything.
    @Test(
        "a score that was to be read before a restart leaves a letter when its key goes",
        arguments: [nil, 110])
    func goneAfterRestart(offset: Int64?) {
        let row = LooseRow(
            table: "scores", identity: Self.row, offset: offset, replaces: offset == nil)
        let driver = MachineDriver(Self.scores, loose: [row])
        driver.send("DEL z:a", .expired)
        let batch = driver.cut()
        #expect(batch?.deadLetters.map(\.code) == ["key.vanished"])
    }

    @Test("what was read of a score before a restart is not added to")
    func readBeforeRestart() {
        let row = LooseRow(table: "scores", identity: Self.row, offset: 120)
        let driver = MachineDriver(Self.scores, loose: [row])
        driver.send("ZINCRBY z:a 5 m")
        driver.send("DEL z:a", .expired)
        let batch = driver.cut()
        #expect(batch?.deadLetters.map(\.code) == ["key.vanished"])
        #expect(batch?.tables.allSatisfy { $0.merges.isEmpty } == true)
    }
}
