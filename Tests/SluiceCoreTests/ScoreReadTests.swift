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

    /// A database with a score of 100, whose key has expired if that is wanted, and a machine that does
    /// not know it and was told to add 5 twice.
    private static func world(
        outlived: Bool = true,
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
        for _ in 0..<2 { driver.send("ZINCRBY z:a 5 m") }
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
        "what the application removed before the read does not come back",
        arguments: ["DEL z:a", "RENAME z:a q:b", "ZREM z:a m"])
    func removedBeforeRead(removal: String) throws {
        var (driver, database) = Self.world()
        try driver.read(Self.one(7), after: [removal, "ZINCRBY z:a 7 m"])
        driver.send(removal)
        driver.send("ZINCRBY z:a 7 m")
        _ = driver.cut { database.apply($0.tables) }
        #expect(database.tables[0][Self.row] == [.real(7)])
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
}
