import SluiceCore
import SluiceTesting
import Testing

/// Totals with dead letters whose keys go and come back.
@Suite("Letters of totals that come back")
struct LetterReturnTests {
    private static func one(_ number: Int) -> ReadValue { .single(Array("\(number)".utf8)) }

    @Test("what is lost of adds before a restart takes no total along when the key comes back")
    func unknownAddsAndBack() throws {
        var database = TotalReadTests.Kind.scores.database(outlived: false)
        let first = MachineDriver(
            TotalReadTests.Kind.scores.tables, letters: [ScoreLetterTests.larger])
        first.send("ZINCRBY z:a 3 m")
        let late = first.cut(isLate: true)
        let driver = MachineDriver(
            TotalReadTests.Kind.scores.tables, loose: late?.loose ?? [],
            letters: [ScoreLetterTests.larger])
        driver.send("DEL z:a", .expired)
        driver.send("ZINCRBY z:a 5 m")
        for batch in driver.settle(Self.one(5)) { database.apply(batch.tables) }
        #expect(TotalReadTests.Kind.scores.total(database) == 115)
        #expect(driver.machine.counters.vanished == 1)
    }

    @Test(
        "the same of a counter that was read before its key went, with what was added since",
        arguments: [false, true])
    func unknownAddsReadAhead(adds: Bool) throws {
        let kind = TotalReadTests.Kind.counters
        var database = kind.database()
        let letter = DeadLetter(
            table: "counters", identity: kind.row, operation: .merge,
            value: Array("{\"value\":{\"add\":\"10\"}}".utf8), code: "23514", message: "")
        let before = MachineDriver(kind.tables)
        before.send("INCRBY c:a 1")
        _ = before.cut { database.apply($0.tables) }
        let first = MachineDriver(kind.tables, letters: [letter])
        first.send("INCRBY c:a 3")
        let late = first.cut(isLate: true)
        let driver = MachineDriver(kind.tables, loose: late?.loose ?? [], letters: [letter])
        let stream = ["DEL c:a", "INCRBY c:a 5"]
        if adds { driver.send("INCRBY c:a 4") }
        try driver.read(Self.one(5), after: stream)
        for line in stream { driver.send(line, .expired) }
        for batch in driver.settle(Self.one(5)) { database.apply(batch.tables) }
        #expect(kind.total(database) == (adds ? 120 : 116))
    }

    private static func letter(_ kind: TotalReadTests.Kind) -> DeadLetter {
        kind == .scores
            ? ScoreLetterTests.larger
            : DeadLetter(
                table: "counters", identity: kind.row, operation: .put,
                value: Array("{\"value\":\"110\",\"expires_at\":null}".utf8), code: "23514",
                message: "")
    }

    // Adds 3, which a restart loses, then 4; the key expires, and comes back with 5.
    private static func restartAmidAdds(
        _ kind: TotalReadTests.Kind, _ letter: DeadLetter, _ database: inout ModelDatabase,
    ) {
        let first = MachineDriver(kind.tables, letters: [letter])
        first.send(kind.add(3))
        let late = first.cut(isLate: true)
        let driver = MachineDriver(kind.tables, loose: late?.loose ?? [], letters: [letter])
        driver.send(kind.add(4))
        driver.send("DEL \(kind.key)", .expired)
        driver.send(kind.add(5))
        for batch in driver.settle(one(5)) { database.apply(batch.tables) }
    }

    @Test(
        "what a letter says is written once, though adds before a restart are not known",
        arguments: TotalReadTests.Kind.allCases, [false, true])
    func unknownAddsOutlived(kind: TotalReadTests.Kind, outlived: Bool) {
        var database = kind.database(outlived: outlived)
        Self.restartAmidAdds(kind, Self.letter(kind), &database)
        #expect(kind.total(database) == 119)
    }

    @Test(
        "adds since a restart go on beside a letter that says what was added, or nothing",
        arguments: TotalReadTests.Kind.allCases, [10, nil])
    func addsSinceRestart(kind: TotalReadTests.Kind, says: Int?) {
        var database = kind.database(outlived: false)
        let name = kind == .scores ? "score" : "value"
        let letter = DeadLetter(
            table: kind.rawValue, identity: kind.row, operation: .merge,
            value: says.map { Array("{\"\(name)\":{\"add\":\"\($0)\"}}".utf8) }, code: "23514",
            message: "")
        Self.restartAmidAdds(kind, letter, &database)
        #expect(kind.total(database) == 109 + (says ?? 0))
    }

    @Test(
        "what a letter says goes on, though the key goes twice in a batch",
        arguments: TotalReadTests.Kind.allCases, ["DEL", "FLUSHALL"])
    func goneTwice(kind: TotalReadTests.Kind, removal: String) throws {
        let removal = removal == "DEL" ? "DEL \(kind.key)" : removal
        var database = kind.database(outlived: false)
        let driver = MachineDriver(kind.tables, letters: [Self.letter(kind)])
        driver.send(removal, .expired)
        driver.send(kind.add(3))
        // A counter whose own key went is known to be gone, and is not read.
        if kind == .scores || removal == "FLUSHALL" { try driver.read(Self.one(3), after: []) }
        driver.send(removal, .expired)
        for batch in driver.settle(Self.one(0)) { database.apply(batch.tables) }
        #expect(kind.total(database) == 113)
    }

    @Test("what was added beside the letter of a score goes on, though it is read of a later key")
    func readAhead() throws {
        let kind = TotalReadTests.Kind.scores
        var database = kind.database(outlived: false)
        let driver = MachineDriver(kind.tables, letters: [Self.letter(kind)])
        driver.send(kind.add(5))
        let stream = ["DEL z:a", kind.add(3)]
        try driver.read(Self.one(3), after: stream)
        for line in stream { driver.send(line, .expired) }
        driver.send("DEL z:a", .expired)
        for batch in driver.settle(Self.one(0)) { database.apply(batch.tables) }
        #expect(kind.total(database) == 118)
    }
}
