import SluiceCore
import SluiceTesting
import Testing

/// Totals that are still to be read, or were read ahead of the stream, when something ends: a batch, a
/// history, the instance, the key.
@Suite("Totals that are read")
struct TotalReadTests {
    enum Kind: String, CaseIterable {
        case counters, scores

        var tables: [TableMapping] { ModelTraffic.mappings.filter { $0.name == rawValue } }
        var key: String { self == .counters ? "c:a" : "z:a" }
        var row: RowIdentity {
            RowIdentity(key: Array(key.utf8), member: self == .counters ? [] : Array("m".utf8))
        }

        func add(_ number: Int) -> String {
            self == .counters ? "INCRBY c:a \(number)" : "ZINCRBY z:a \(number) m"
        }

        /// A database with a total of 100, the key of which has expired if that is wanted.
        func database(outlived: Bool = true) -> ModelDatabase {
            var database = ModelDatabase(mappings: tables)
            let driver = MachineDriver(tables)
            driver.send(self == .counters ? "SET c:a 100" : "ZADD z:a 100 m")
            _ = driver.cut { database.apply($0.tables) }
            guard outlived else { return database }
            driver.send("DEL \(key)", .expired)
            _ = driver.cut { database.apply($0.tables) }
            return database
        }

        func total(_ database: ModelDatabase) -> Int? {
            switch database.tables[0][row]?.first {
            case .integer(let total)?: Int(total)
            case .real(let total)?: Int(total)
            default: nil
            }
        }
    }

    private static func one(_ number: Int) -> ReadValue { .single(Array("\(number)".utf8)) }

    @Test("a gap while it is read ahead", arguments: Kind.allCases, [false, true])
    func gap(kind: Kind, isAhead: Bool) throws {
        var database = kind.database()
        let driver = MachineDriver(kind.tables)
        driver.lookAgain(kind.row, table: kind.rawValue)
        try driver.read(Self.one(5), after: isAhead ? ["PING"] : [])
        driver.resynchronise()
        _ = driver.cut { database.apply($0.tables) }
        #expect(kind.total(database) == (isAhead ? 100 : 105))
        guard kind == .counters else { return }
        driver.scan(["c:a"], isAfterCut: false)
        _ = driver.endBaseline(Self.one(5), apply: { database.apply($0.tables) })
        #expect(kind.total(database) == 105)
    }

    @Test("a gap while a baseline has read it ahead")
    func gapInBaseline() throws {
        let kind = Kind.counters
        var database = kind.database()
        let driver = MachineDriver(kind.tables)
        driver.resynchronise()
        _ = driver.cut { database.apply($0.tables) }
        driver.scan(["c:a"], isAfterCut: false)
        driver.answer(try #require(driver.nextRead(asksCut: false)), Self.one(5), ahead: 1)
        driver.resynchronise(at: 5_000)
        _ = driver.cut { database.apply($0.tables) }
        driver.scan(["c:a"], isAfterCut: false)
        _ = driver.endBaseline(Self.one(5), apply: { database.apply($0.tables) })
        #expect(kind.total(database) == 105)
    }

    @Test("a stop while a baseline has read it ahead", arguments: [false, true])
    func stopInBaseline(losing: Bool) throws {
        let kind = Kind.counters
        var database = kind.database()
        let driver = MachineDriver(kind.tables)
        driver.resynchronise()
        _ = driver.cut { database.apply($0.tables) }
        driver.scan(["c:a"], isAfterCut: false)
        driver.answer(try #require(driver.nextRead(asksCut: false)), Self.one(5), ahead: 1)
        _ = driver.drain(losing: losing) { database.apply($0.tables) }
        #expect(kind.total(database) == 100)
        let next = MachineDriver(kind.tables, isBaselineDone: false)
        next.scan(["c:a"], isAfterCut: false)
        _ = next.endBaseline(Self.one(5), apply: { database.apply($0.tables) })
        #expect(kind.total(database) == 105)
    }

    @Test("a stop while it is read ahead", arguments: Kind.allCases, [false, true])
    func stop(kind: Kind, outlived: Bool) throws {
        var database = kind.database(outlived: outlived)
        let driver = MachineDriver(kind.tables)
        driver.lookAgain(kind.row, table: kind.rawValue)
        let value = Self.one(outlived ? 5 : 105)
        try driver.read(value, after: [kind.add(5)])
        var loose: [LooseRow] = []
        let isDone = driver.drain { batch in
            database.apply(batch.tables)
            loose = batch.loose ?? loose
        }
        #expect(isDone)
        let next = MachineDriver(kind.tables, loose: loose)
        next.send(kind.add(5))
        for batch in next.settle(value) { database.apply(batch.tables) }
        #expect(kind.total(database) == 105)
    }

    @Test("a stop that commits late, and goes on", arguments: Kind.allCases)
    func stopGoesOn(kind: Kind) throws {
        var database = kind.database()
        let driver = MachineDriver(kind.tables)
        driver.lookAgain(kind.row, table: kind.rawValue)
        try driver.read(Self.one(5), after: [kind.add(5)])
        let other =
            kind == .counters
            ? RowIdentity(key: Array("c:b".utf8))
            : RowIdentity(key: Array("z:b".utf8), member: Array("m".utf8))
        driver.lookAgain(other, table: kind.rawValue)
        driver.drainLate { database.apply($0.tables) }
        driver.send(kind.add(5))
        for batch in driver.settle(Self.one(5)) { database.apply(batch.tables) }
        #expect(kind.total(database) == 105)
    }

    @Test(
        "a kill after a batch that ended before the read", arguments: Kind.allCases, [false, true])
    func kill(kind: Kind, isBack: Bool) throws {
        var database = kind.database()
        var total = 105
        if isBack {
            let driver = MachineDriver(kind.tables)
            driver.send(kind.add(1))
            _ = driver.cut { database.apply($0.tables) }
            total += 1
        }
        let driver = MachineDriver(kind.tables, strays: kind == .counters ? ["counters"] : [])
        driver.send(kind.add(2))
        driver.send(kind.add(3))
        let late = driver.cut(isLate: true) { database.apply($0.tables) }
        #expect(kind.total(database) == total)
        let next = MachineDriver(kind.tables, loose: late?.loose ?? [], offset: 120)
        for batch in next.settle(Self.one(isBack ? 6 : 5)) { database.apply(batch.tables) }
        #expect(kind.total(database) == total)
    }

    @Test("what a batch took along is not added again when the key goes", arguments: Kind.allCases)
    func goneAfterBatch(kind: Kind) {
        var database = kind.database()
        let driver = MachineDriver(kind.tables, strays: kind == .counters ? ["counters"] : [])
        for number in [2, 3] { driver.send(kind.add(number)) }
        _ = driver.cut(isLate: true) { database.apply($0.tables) }
        #expect(kind.total(database) == 105)
        driver.send("DEL \(kind.key)", .expired)
        _ = driver.cut { database.apply($0.tables) }
        #expect(kind.total(database) == 105)
    }

    @Test("a stop where the table has rows without a key", arguments: [false, true])
    func strays(isRead: Bool) throws {
        let kind = Kind.counters
        var database = kind.database()
        let driver = MachineDriver(kind.tables, strays: ["counters"])
        driver.send(kind.add(5))
        if isRead { try driver.read(Self.one(12), after: [kind.add(7)]) }
        var loose: [LooseRow] = []
        let isDone = driver.drain { batch in
            database.apply(batch.tables)
            loose = batch.loose ?? loose
        }
        #expect(isDone)
        #expect(kind.total(database) == 105)
        let next = MachineDriver(kind.tables, loose: loose, offset: 110, strays: ["counters"])
        next.send(kind.add(7))
        for batch in next.settle(Self.one(12)) { database.apply(batch.tables) }
        #expect(kind.total(database) == 112)
    }

    @Test("rows that wait for the stream ask for no batch after batch", arguments: Kind.allCases)
    func waiting(kind: Kind) throws {
        let driver = MachineDriver(kind.tables, policy: PipelinePolicy(rowsMax: 3))
        for number in 0..<4 {
            let row =
                kind == .counters
                ? RowIdentity(key: Array("c:\(number)".utf8))
                : RowIdentity(key: Array("z:a".utf8), member: Array("\(number)".utf8))
            driver.lookAgain(row, table: kind.rawValue)
        }
        try driver.read(Self.one(5), after: ["PING"])
        #expect(driver.commitsAfterLoss(atMost: 100) < 9)
    }

    @Test("what was more than adds replaces the row, though a restart comes before the read")
    func replacedBeforeRestart() {
        for (kind, change) in [(Kind.counters, "APPEND c:a 7"), (.scores, "ZADD z:a GT 7 m")] {
            var database = kind.database()
            let driver = MachineDriver(kind.tables)
            driver.send(change)
            let late = driver.cut(isLate: true) { database.apply($0.tables) }
            let next = MachineDriver(kind.tables, loose: late?.loose ?? [])
            for batch in next.settle(Self.one(7)) { database.apply(batch.tables) }
            #expect(kind.total(database) == 7)
        }
    }

    @Test("what came to it before a stop and after needs no letter when its key goes unread")
    func goneAfterStop() throws {
        var database = Kind.scores.database(outlived: false)
        let driver = MachineDriver(Kind.scores.tables)
        for _ in 0..<2 { driver.send("ZINCRBY z:a 5 m") }
        var loose: [LooseRow] = []
        let isDone = driver.drain { batch in
            database.apply(batch.tables)
            loose = batch.loose ?? loose
        }
        #expect(isDone && !loose.isEmpty)
        let next = MachineDriver(Kind.scores.tables, loose: loose)
        next.send("ZINCRBY z:a 7 m")
        next.send("DEL z:a", .expired)
        let batch = next.cut { database.apply($0.tables) }
        #expect(Kind.scores.total(database) == 117)
        #expect(batch?.deadLetters.isEmpty == true)
    }

    // MARK: Scores

    /// What had made it so may have been anything, and one more add does not say.
    @Test("a score that was to be read before a restart, was added to and went, leaves a letter")
    func unknownThenAdded() {
        var database = Kind.scores.database(outlived: false)
        let driver = MachineDriver(Kind.scores.tables)
        driver.send("ZADD z:a GT 150 m")
        let late = driver.cut(isLate: true) { database.apply($0.tables) }
        let next = MachineDriver(Kind.scores.tables, loose: late?.loose ?? [])
        next.send("ZINCRBY z:a 5 m")
        next.send("DEL z:a", .expired)
        let batch = next.cut { database.apply($0.tables) }
        #expect(batch?.deadLetters.map(\.code) == ["key.vanished"])
    }

    @Test("a key that goes in doubt before the read begins its scores afresh, also in a late batch")
    func doubt() throws {
        var database = Kind.scores.database(outlived: false)
        let driver = MachineDriver(Kind.scores.tables)
        driver.send("DEL z:b")
        for _ in 0..<2 { driver.send("ZINCRBY z:a 5 m") }
        try driver.read(Self.one(3), after: ["DEL z:a", "ZINCRBY z:a 3 m", "PING"])
        driver.send("DEL z:a", nil)
        driver.send("ZINCRBY z:a 3 m")
        _ = driver.cut(isLate: true) { database.apply($0.tables) }
        #expect(Kind.scores.total(database) == 3)
    }

    @Test("a member that was removed before the place of its read goes, whatever had it read")
    func removed() throws {
        var database = Kind.scores.database(outlived: false)
        let driver = MachineDriver(Kind.scores.tables)
        driver.send("ZADD z:a GT 150 m")
        try driver.read(.missing, type: nil, after: ["ZREM z:a m"], until: ["DEL z:a"])
        driver.send("ZREM z:a m")
        driver.send("DEL z:a", .expired)
        let batch = driver.cut { database.apply($0.tables) }
        #expect(Kind.scores.total(database) == nil)
        #expect(batch?.deadLetters.isEmpty == true)
    }

    @Test(
        "tables that share names: a kill after a batch before the read", arguments: [false, true])
    func shared(isRead: Bool) throws {
        let tables = ModelTraffic.mappings.filter { $0.name.hasPrefix("shared") }
        let row = RowIdentity(key: Array("y:a".utf8), member: Array("m".utf8))
        let table = try #require(tables.firstIndex { $0.name == "shared_scores" })
        var database = ModelDatabase(mappings: tables)
        let first = MachineDriver(tables)
        first.send("ZADD y:a 100 m")
        _ = first.cut { database.apply($0.tables) }
        first.send("DEL y:a", .expired)
        first.send("ZINCRBY y:a 1 m")
        _ = first.cut { database.apply($0.tables) }
        let driver = MachineDriver(tables)
        for _ in 0..<2 { driver.send("ZINCRBY y:a 5 m") }
        if isRead { try driver.read(Self.one(11), after: ["PING"]) }
        let late = driver.cut(isLate: true) { database.apply($0.tables) }
        let next = MachineDriver(tables, loose: late?.loose ?? [], offset: 120)
        for batch in next.settle(Self.one(11)) { database.apply(batch.tables) }
        #expect(database.tables[table][row] == [.real(111)])
    }
}
