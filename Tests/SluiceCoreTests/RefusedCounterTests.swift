import SluiceCore
import SluiceTesting
import Testing

/// Counters that outlived their keys, and to which the database refuses to add.
@Suite("Refused counters")
struct RefusedCounterTests {
    private static let mappings = ModelTraffic.mappings.filter { $0.name == "counters" }
    private static let row = RowIdentity(key: Array("c:a".utf8))
    private var database = ModelDatabase(mappings: Self.mappings)

    private var value: ModelDatabase.Stored? { database.tables[0][Self.row]?[0] }

    private static func text(_ number: Int) -> ReadValue { .single(Array("\(number)".utf8)) }

    private mutating func settle(_ driver: MachineDriver) throws -> [DeadLetter] {
        var refused: [DeadLetter] = []
        _ = try #require(
            driver.cut { batch in
                refused = database.apply(batch.tables)
                return refused
            })
        return refused
    }

    /// Commits while other commands come.
    private mutating func cut(_ driver: MachineDriver, during commands: () -> Void) {
        var database = database
        _ = driver.cut { batch in
            commands()
            return database.apply(batch.tables)
        }
        self.database = database
    }

    /// A row of 100 whose key expired, and came back with 7 that the database refuses.
    private mutating func refuse() throws -> (driver: MachineDriver, letter: DeadLetter) {
        let driver = MachineDriver(Self.mappings)
        driver.send("SET c:a 100")
        #expect(try settle(driver).isEmpty)
        driver.send("DEL c:a", .expired)
        #expect(try settle(driver).isEmpty)
        // The model refuses 107.
        database.refuses = true
        driver.send("INCRBY c:a 7")
        #expect(try settle(driver).count == 1)
        // What the row should be may be known by a read; of this one it is not.
        try driver.read(Self.text(7), after: [])
        let letter = try #require(try settle(driver).first)
        #expect(letter.operation == .merge)
        #expect(String(decoding: letter.value ?? [], as: UTF8.self).contains("{\"add\":\"7\"}"))
        return (driver, letter)
    }

    @Test("what is refused is not tried again with each commit, and added with what comes after it")
    mutating func added() throws {
        let (driver, _) = try refuse()
        #expect(driver.nextRead() == nil)
        driver.send("INCRBY c:a 1")
        try driver.read(Self.text(8), after: [])
        #expect(try settle(driver).isEmpty)
        #expect(value == .integer(108))
        // Nothing of it is added once more.
        driver.send("INCRBY c:a 2")
        #expect(try settle(driver).isEmpty)
        #expect(value == .integer(110))
        driver.lookAgain(Self.row, table: "counters")
        try driver.read(Self.text(10), after: [])
        _ = driver.cut { database.apply($0.tables) }
        #expect(value == .integer(110))
    }

    @Test("what was folded while the database refused an add is added too")
    mutating func folded() throws {
        let driver = MachineDriver(Self.mappings)
        driver.send("SET c:a 100")
        _ = try settle(driver)
        driver.send("DEL c:a", .expired)
        _ = try settle(driver)
        database.refuses = true
        driver.send("INCRBY c:a 7")
        cut(driver) { driver.send("INCRBY c:a 5") }
        try driver.read(Self.text(12), after: [])
        #expect(try settle(driver).isEmpty)
        #expect(value == .integer(112))
    }

    @Test(
        "a letter that is tried again adds what it holds, also after a restart",
        arguments: [false, true])
    mutating func retried(isRestarted: Bool) throws {
        let (first, letter) = try refuse()
        let driver = isRestarted ? MachineDriver(Self.mappings, letters: [letter]) : first
        database.refuses = false
        try driver.retry(letter)
        try driver.read(Self.text(7), after: [])
        #expect(try settle(driver).isEmpty)
        #expect(value == .integer(107))
        driver.send("INCRBY c:a 2")
        #expect(try settle(driver).isEmpty)
        #expect(value == .integer(109))
    }

    @Test("what a letter holds outlives its key once more", arguments: [false, true])
    mutating func expired(isRestarted: Bool) throws {
        let (first, letter) = try refuse()
        first.send("DEL c:a", .expired)
        #expect(try settle(first).isEmpty)
        #expect(value == .integer(100))
        let driver = isRestarted ? MachineDriver(Self.mappings, letters: [letter]) : first
        driver.send("INCRBY c:a 2")
        try driver.read(Self.text(2), after: [])
        #expect(try settle(driver).isEmpty)
        #expect(value == .integer(109))
    }

    @Test("a value that replaces the row ends what was to be added")
    mutating func replaced() throws {
        let (driver, _) = try refuse()
        // The row waits for a read when it is replaced.
        driver.send("INCRBY c:a 1")
        driver.send("SET c:a 5")
        #expect(try settle(driver).isEmpty)
        #expect(value == .integer(5))
    }

    @Test(
        "a total that was refused before its key expired is what goes on", arguments: [false, true])
    mutating func refusedTotal(isRestarted: Bool) throws {
        let first = MachineDriver(Self.mappings)
        first.send("SET c:a 100")
        #expect(try settle(first).isEmpty)
        database.refuses = true
        first.send("INCRBY c:a 7")
        first.send("DEL c:a", .expired)
        let letter = try #require(try settle(first).first)
        #expect(letter.operation == .put && value == .integer(100))
        let driver = isRestarted ? MachineDriver(Self.mappings, letters: [letter]) : first
        driver.send("INCRBY c:a 1")
        try driver.read(Self.text(1), after: [])
        #expect(try settle(driver).isEmpty)
        #expect(value == .integer(108))
        driver.send("INCRBY c:a 1")
        #expect(try settle(driver).isEmpty)
        #expect(value == .integer(109))
    }

    @Test(
        "what was added and expired while the database refused an add is added, and the row stays")
    mutating func goneInFlight() throws {
        let driver = MachineDriver(Self.mappings)
        driver.send("SET c:a 100")
        _ = try settle(driver)
        driver.send("DEL c:a", .expired)
        _ = try settle(driver)
        database.refuses = true
        driver.send("INCRBY c:a 7")
        cut(driver) {
            driver.send("INCRBY c:a 5")
            driver.send("DEL c:a", .expired)
        }
        #expect(try settle(driver).isEmpty)
        #expect(value == .integer(112))
    }

    @Test("a key that went and came back while the database refused an add goes on")
    mutating func backInFlight() throws {
        let first = MachineDriver(Self.mappings)
        first.send("SET c:a 100")
        _ = try settle(first)
        database.refuses = true
        // An instance that does not know the row: it only adds to it.
        let driver = MachineDriver(Self.mappings)
        driver.send("INCRBY c:a 7")
        cut(driver) {
            driver.send("DEL c:a", .expired)
            driver.send("INCRBY c:a 5")
        }
        #expect(try settle(driver).isEmpty)
        #expect(value == .integer(112))
    }

    @Test("a key that comes back right after it was looked for in vain goes on")
    mutating func lookedFor() throws {
        let (driver, letter) = try refuse()
        driver.send("DEL c:a", .expired)
        _ = try settle(driver)
        database.refuses = false
        try driver.retry(letter)
        try driver.read(.missing, after: [])
        driver.send("INCRBY c:a 2")
        #expect(try settle(driver).isEmpty)
        #expect(value == .integer(109))
    }

    @Test("what a person discards is not added")
    mutating func discarded() throws {
        let (driver, _) = try refuse()
        driver.discard(LetterChoice(key: Self.row.key))
        driver.send("INCRBY c:a 1")
        try driver.read(Self.text(8), after: [])
        #expect(try settle(driver).isEmpty)
        #expect(value == .integer(101))
    }
}
