import SluiceCore
import SluiceTesting
import Testing

/// Points that the database refused: they stand in a dead letter alone, and go with what comes next.
@Suite("Scores with letters")
struct ScoreLetterTests {
    private typealias Kind = TotalReadTests.Kind

    private static func one(_ number: Int) -> ReadValue { .single(Array("\(number)".utf8)) }

    static let letter = DeadLetter(
        table: "scores", identity: Kind.scores.row, operation: .merge,
        value: Array("{\"score\":{\"add\":\"10.0\"}}".utf8), code: "23514", message: "")

    /// What the score was to be, beyond what the database has.
    static let larger = DeadLetter(
        table: "scores", identity: Kind.scores.row, operation: .put,
        value: Array("{\"score\":\"110.0\"}".utf8), code: "23514", message: "")

    static let whole = DeadLetter(
        table: "scores", identity: Kind.scores.row, operation: .put,
        value: Array("{\"score\":\"100.0\"}".utf8), code: "23514", message: "")

    @Test(
        "what was refused of a score before a restart is added when its letter is tried",
        arguments: [false, true], [false, true])
    func refusedBeforeRestart(outlived: Bool, goes: Bool) throws {
        var database = Kind.scores.database(outlived: outlived)
        var total = 100
        if outlived {
            let first = MachineDriver(Kind.scores.tables)
            first.send("ZINCRBY z:a 1 m")
            _ = first.cut { database.apply($0.tables) }
            total += 1
        }
        let driver = MachineDriver(Kind.scores.tables, letters: [Self.letter])
        try driver.retry(Self.letter)
        if goes {
            driver.send("DEL z:a", .expired)
        } else {
            try driver.read(Self.one(outlived ? 11 : 110), after: [])
        }
        _ = driver.cut { database.apply($0.tables) }
        #expect(Kind.scores.total(database) == total + 10)
    }

    /// What came to it beside the letter, before the restart, is nowhere.
    @Test(
        "a score with a letter that was to be read before a restart leaves one when it goes unread")
    func lettersBeforeRestart() throws {
        for letter in [Self.larger, Self.whole] {
            let driver = MachineDriver(Kind.scores.tables, letters: [letter])
            driver.send("ZINCRBY z:a 3 m")
            let late = driver.cut(isLate: true)
            let next = MachineDriver(
                Kind.scores.tables, loose: late?.loose ?? [], letters: [letter])
            next.send("DEL z:a", .expired)
            let batch = next.cut()
            #expect(batch?.deadLetters.map(\.code) == ["key.vanished"])
            #expect(batch?.revived.isEmpty == true)
            #expect(batch?.tables.allSatisfy { $0.merges.isEmpty } == true)
        }
        let driver = MachineDriver(Kind.scores.tables, letters: [Self.whole])
        driver.send("ZINCRBY z:a 3 m")
        let isDone = driver.drain { #expect($0.revived.isEmpty && $0.tables.isEmpty) }
        #expect(isDone)
    }

    @Test("a letter that is discarded while its row is read is added to nothing")
    func discardedWhileRead() throws {
        var database = Kind.scores.database()
        let driver = MachineDriver(Kind.scores.tables, letters: [Self.letter])
        driver.send("ZINCRBY z:a 3 m")
        driver.discard(LetterChoice(table: "scores"))
        try driver.read(Self.one(3), after: [])
        _ = driver.cut { database.apply($0.tables) }
        #expect(Kind.scores.total(database) == 103)
    }

    @Test("what is added to a score while the database refuses it")
    func addedWhileRefused() {
        var database = Kind.scores.database()
        let driver = MachineDriver(Kind.scores.tables)
        driver.send("ZINCRBY z:a 1 m")
        _ = driver.cut { database.apply($0.tables) }
        driver.send("ZINCRBY z:a 10 m")
        _ = driver.cut { _ in
            driver.fold("ZINCRBY z:a 3 m")
            return [Self.letter]
        }
        for batch in driver.settle(Self.one(14)) { database.apply(batch.tables) }
        #expect(Kind.scores.total(database) == 114)
    }

    @Test(
        "what was refused is added once, though its key expires meanwhile",
        arguments: [false, true])
    func refusedAndGone(isBack: Bool) throws {
        var database = Kind.scores.database()
        let driver = MachineDriver(Kind.scores.tables)
        for _ in 0..<2 { driver.send("ZINCRBY z:a 5 m") }
        try driver.read(Self.one(10), after: [])
        _ = driver.cut { _ in
            driver.send("DEL z:a", .expired)
            if isBack { driver.send("ZINCRBY z:a 3 m") }
            return [Self.letter]
        }
        driver.resynchronise()
        var revived: [DeadLetter] = []
        _ = driver.cut {
            database.apply($0.tables)
            revived += $0.revived
            return []
        }
        // Without a key that came back, the letter has it.
        #expect(Kind.scores.total(database) == (isBack ? 113 : 100))
        #expect(revived.isEmpty != isBack)
    }

    @Test("a member whose name does not fit has its points in a letter, with each batch")
    func misfit() throws {
        let scores = Kind.scores.tables.map {
            TableMapping(
                name: $0.name, keys: $0.keys, type: $0.type, columns: $0.values,
                member: Column(name: "member", type: .integer))
        }
        let driver = MachineDriver(scores)
        for _ in 0..<2 { driver.send("ZINCRBY z:a 5 m") }
        let late = driver.cut(isLate: true)
        #expect(
            late?.deadLetters.map { String(decoding: $0.value ?? [], as: UTF8.self) } == [
                "{\"score\":{\"add\":\"10.0\"}}"
            ])
        driver.send("DEL z:a", .expired)
        let batch = driver.cut()
        #expect(
            batch?.deadLetters.map { String(decoding: $0.value ?? [], as: UTF8.self) } == [
                "{\"score\":{\"add\":\"10.0\"}}"
            ])
        #expect(batch?.revived.isEmpty == true)
    }

    @Test("to discard a member's letter leaves what those of others say")
    func discarded() throws {
        var database = Kind.scores.database()
        let first = MachineDriver(Kind.scores.tables)
        first.send("ZINCRBY z:a 1 m")
        _ = first.cut { database.apply($0.tables) }
        let driver = MachineDriver(Kind.scores.tables, letters: [Self.letter])
        driver.discard(LetterChoice(table: "scores", key: Array("z:a".utf8), member: [0x6E]))
        driver.send("ZINCRBY z:a 7 m")
        for batch in driver.settle(Self.one(18)) { database.apply(batch.tables) }
        #expect(Kind.scores.total(database) == 118)
    }

    @Test("where what is removed stays, refused points go with what comes in the same batch")
    func removedAndKept() {
        let scores = ScoreReadTests.policies(RemovalPolicies(onDelete: .keep))
        var database = Kind.scores.database(outlived: false)
        let driver = MachineDriver(scores, letters: [Self.letter])
        driver.send("ZREM z:a m")
        driver.send("ZINCRBY z:a 3 m")
        for batch in driver.settle(Self.one(3)) { database.apply(batch.tables) }
        #expect(Kind.scores.total(database) == 113)
    }

    @Test("a letter that a batch takes along ends, and what comes then is added to no letter")
    func takenAlong() {
        var database = Kind.scores.database(outlived: false)
        let driver = MachineDriver(Kind.scores.tables, letters: [Self.letter])
        driver.send("ZINCRBY z:a 3 m")
        var revived: [[RowIdentity]] = []
        for _ in 0..<2 {
            driver.drainLate {
                database.apply($0.tables)
                revived.append($0.revived.map(\.identity))
            }
            driver.send("ZINCRBY z:a 7 m")
        }
        #expect(revived == [[Kind.scores.row], []])
        #expect(Kind.scores.total(database) == 120)
    }

    /// The second is known as Redis has it, and so is read once more.
    @Test(
        "what is refused while its key goes and comes back goes on",
        arguments: [
            (["ZINCRBY z:a 10 m"], letter, nil), (["ZADD z:a 110 m"], larger, 3),
            (["ZADD z:a 110 m", "DEL z:a"], larger, nil),
        ])
    func refusedAndBack(lines: [String], letter: DeadLetter, read: Int?) {
        var database = Kind.scores.database(outlived: false)
        let driver = MachineDriver(Kind.scores.tables)
        for line in lines { driver.send(line, .expired) }
        _ = driver.cut { _ in
            for line in ["ZINCRBY z:a 1 m", "DEL z:a", "ZINCRBY z:a 3 m"] {
                driver.send(line, .expired)
            }
            return [letter]
        }
        let batches = driver.settle(read.map(Self.one))
        for batch in batches { database.apply(batch.tables) }
        #expect(batches.allSatisfy { $0.deadLetters.isEmpty })
        #expect(batches.flatMap(\.revived).map(\.identity) == [Kind.scores.row])
        #expect(Kind.scores.total(database) == 114)
    }

    @Test("what came back while nobody looked has what was refused before, too")
    func refusedBeforeReturn() throws {
        var database = Kind.scores.database()
        let driver = MachineDriver(Kind.scores.tables, letters: [Self.letter])
        try driver.retry(Self.letter)
        try driver.read(Self.one(5), after: [])
        let batch = driver.cut { database.apply($0.tables) }
        #expect(batch?.revived.map(\.identity) == [Kind.scores.row])
        #expect(Kind.scores.total(database) == 115)
    }

    @Test("the letter of a whole score stays where nothing came to it before its key went")
    func wholeUnread() {
        let driver = MachineDriver(Kind.scores.tables, letters: [Self.whole])
        driver.lookAgain(Kind.scores.row, table: "scores")
        driver.send("DEL z:a", .expired)
        let batch = driver.cut()
        #expect(batch?.deadLetters.isEmpty == true)
        #expect(batch?.revived.isEmpty == true)
    }

    @Test("the letter of a row whose key goes is not forgotten with the commit that says so")
    func goneBetween() {
        var database = Kind.scores.database(outlived: false)
        let driver = MachineDriver(Kind.scores.tables, letters: [Self.letter])
        driver.send("DEL z:a", .expired)
        _ = driver.cut { database.apply($0.tables) }
        driver.send("ZINCRBY z:a 3 m")
        for batch in driver.settle(Self.one(3)) { database.apply(batch.tables) }
        #expect(Kind.scores.total(database) == 113)
    }

    @Test("what a score was to be, and was refused, goes on when its key comes back")
    func wholeGoesOn() throws {
        for isSplit in [false, true] {
            var database = Kind.scores.database(outlived: isSplit)
            let driver = MachineDriver(Kind.scores.tables, letters: [Self.larger])
            if !isSplit { driver.send("DEL z:a", .expired) }
            driver.send("ZINCRBY z:a 5 m")
            for batch in driver.settle(Self.one(5)) { database.apply(batch.tables) }
            #expect(Kind.scores.total(database) == 115)
        }
    }

    @Test("what was added to a score beside its letter is written when its key goes")
    func wholeAndAdds() throws {
        var database = Kind.scores.database(outlived: false)
        let driver = MachineDriver(Kind.scores.tables, letters: [Self.larger])
        driver.send("ZINCRBY z:a 5 m")
        driver.send("DEL z:a", .expired)
        let batch = driver.cut { database.apply($0.tables) }
        #expect(batch?.revived.map(\.identity) == [Kind.scores.row])
        #expect(Kind.scores.total(database) == 115)
        #expect(database.kept(0, Kind.scores.row) == .gone)
    }

    @Test("a letter to which nothing was added before a restart is no less than before it")
    func lacksNothing() throws {
        for letter in [Self.letter, Self.larger] {
            var database = Kind.scores.database(outlived: false)
            let driver = MachineDriver(Kind.scores.tables, letters: [letter])
            driver.lookAgain(Kind.scores.row, table: "scores")
            let late = driver.cut(isLate: true)
            let next = MachineDriver(
                Kind.scores.tables, loose: late?.loose ?? [], letters: [letter])
            next.send("DEL z:a", .expired)
            let batch = next.cut { database.apply($0.tables) }
            #expect(batch?.deadLetters.isEmpty == true)
            let isWritten = batch?.revived.isEmpty == false
            #expect(Kind.scores.total(database) == (isWritten ? 110 : 100))
            #expect(letter == Self.larger || isWritten)
        }
    }

    @Test("a letter that lacks adds stays one through a stop")
    func lacksAddsTwice() {
        let first = MachineDriver(Kind.scores.tables, letters: [Self.larger])
        first.send("ZINCRBY z:a 3 m")
        let late = first.cut(isLate: true)
        var loose = late?.loose ?? []
        let second = MachineDriver(Kind.scores.tables, loose: loose, letters: [Self.larger])
        second.send("ZADD z:b 1 m")
        let isDone = second.drain {
            loose = $0.loose ?? loose
            #expect($0.revived.isEmpty && $0.tables.allSatisfy { $0.merges.isEmpty })
        }
        #expect(isDone)
        let third = MachineDriver(Kind.scores.tables, loose: loose, letters: [Self.larger])
        third.send("DEL z:a", .expired)
        #expect(third.cut()?.deadLetters.map(\.code) == ["key.vanished"])
    }

    @Test("what a counter was to be ends with the letter that said so")
    func otherLetter() throws {
        let kind = Kind.counters
        var database = kind.database(outlived: false)
        let letter = DeadLetter(
            table: "counters", identity: kind.row, operation: .put,
            value: Array("{\"value\":\"107\",\"expires_at\":null}".utf8), code: "23514", message: ""
        )
        let driver = MachineDriver(kind.tables, letters: [letter])
        driver.send("SET c:a word")
        _ = driver.cut { database.apply($0.tables) }
        driver.send("DEL c:a", .expired)
        _ = driver.cut { database.apply($0.tables) }
        driver.send("INCRBY c:a 5")
        for batch in driver.settle(Self.one(5)) { database.apply(batch.tables) }
        #expect(kind.total(database) == 105)
    }
}
