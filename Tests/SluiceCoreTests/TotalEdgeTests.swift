import SluiceCore
import SluiceTesting
import Testing

@Suite("Totals that are looked for, or read before their keys go")
struct TotalEdgeTests {
    typealias Kind = TotalReadTests.Kind
    private static func one(_ number: Int) -> ReadValue { .single(Array("\(number)".utf8)) }
    private static func added(_ kind: Kind) -> DeadLetter {
        let name = kind == .scores ? "score" : "value"
        return DeadLetter(
            table: kind.rawValue, identity: kind.row, operation: .merge,
            value: Array("{\"\(name)\":{\"add\":\"10\"}}".utf8), code: "23514", message: "")
    }

    @Test("a stop while the letter of a row that outlived its key is tried leaves both")
    func stop() throws {
        let kind = Kind.scores
        var database = kind.database()  // 100, and its key is gone
        let driver = MachineDriver(kind.tables, letters: [Self.added(kind)])
        try driver.retry(Self.added(kind))
        var loose: [LooseRow] = []
        var revived: [DeadLetter] = []
        let isDone = driver.drain {
            database.apply($0.tables)
            loose = $0.loose ?? loose
            revived += $0.revived
        }
        #expect(isDone)
        #expect(kind.total(database) == (revived.isEmpty ? 100 : 110))
        #expect(database.kept(0, kind.row) == .gone)
        let next = MachineDriver(
            kind.tables, loose: loose, letters: revived.isEmpty ? [Self.added(kind)] : [])
        for batch in next.settle(.missing) { database.apply(batch.tables) }
        #expect(kind.total(database) == (revived.isEmpty ? 100 : 110))
        #expect(database.kept(0, kind.row) == .gone)
    }

    @Test("so does a gap, and the row stays")
    func gap() throws {
        let kind = Kind.scores
        var database = kind.database()
        let driver = MachineDriver(kind.tables, letters: [Self.added(kind)])
        try driver.retry(Self.added(kind))
        driver.resynchronise()
        _ = driver.cut { database.apply($0.tables) }
        driver.scan([], isAfterCut: false)
        _ = driver.endBaseline(nil, apply: { database.apply($0.tables) })
        driver.lookAgain(kind.row, table: kind.rawValue)
        for batch in driver.settle(.missing) { database.apply(batch.tables) }
        #expect(kind.total(database) ?? 0 >= 100)
        #expect(database.kept(0, kind.row) == .gone)
    }

    @Test("a total that was read missing goes on after a failover", arguments: [false, true])
    func failover(hasLetter: Bool) throws {
        let kind = Kind.scores
        var database = kind.database(outlived: false)
        let driver = MachineDriver(kind.tables, letters: hasLetter ? [ScoreLetterTests.larger] : [])
        driver.send(kind.add(3))
        if !hasLetter { driver.send(kind.add(4)) }
        try driver.read(.missing, after: ["DEL z:a"])
        driver.failOver()
        try driver.read(Self.one(8), after: ["DEL z:a", kind.add(8)])
        driver.send("DEL z:a", .expired)
        driver.send(kind.add(8))
        for batch in driver.settle(Self.one(8)) { database.apply(batch.tables) }
        #expect(kind.total(database) == (hasLetter ? 121 : 115))
    }

    @Test("so it does when its key is gone for good", arguments: Kind.allCases)
    func failoverGone(kind: Kind) throws {
        var database = kind.database(outlived: false)
        let letter = Self.added(kind)
        let driver = MachineDriver(kind.tables, letters: [letter])
        driver.send(kind.add(3))
        try driver.read(.missing, after: ["DEL x"])
        driver.failOver()
        driver.send("DEL \(kind.key)", .expired)
        for batch in driver.settle(nil) { database.apply(batch.tables) }
        #expect(kind.total(database) == 113)
    }

    @Test(
        "what stands between a replacement and the end of a key before the read is in the total",
        arguments: ["ZADD z:a 194 m", "ZREM z:a m", "DEL z:a"])
    func between(line: String) throws {
        let kind = Kind.scores
        var database = kind.database(outlived: false)
        let driver = MachineDriver(kind.tables)
        driver.send(kind.add(3))
        driver.send(kind.add(4))
        let isAdd = line.hasPrefix("ZADD")
        let stream = [line, kind.add(6), "DEL z:a", kind.add(2)]
        try driver.read(Self.one(2), after: stream)
        driver.send(line)
        driver.send(kind.add(6))
        driver.send("DEL z:a", .expired)
        driver.send(kind.add(2))
        for batch in driver.settle(Self.one(2)) { database.apply(batch.tables) }
        #expect(kind.total(database) == (isAdd ? 202 : 8))
    }

    @Test("so is that of a counter", arguments: ["SET c:a 5", "DEL c:a"])
    func betweenOfCounter(line: String) throws {
        let kind = Kind.counters
        var database = kind.database(outlived: false)
        let driver = MachineDriver(kind.tables, strays: ["counters"])
        driver.send(kind.add(3))
        let stream = [line, kind.add(6), "FLUSHALL", kind.add(2)]
        try driver.read(Self.one(2), after: stream)
        for line in stream { driver.send(line) }
        for batch in driver.settle(Self.one(2)) { database.apply(batch.tables) }
        #expect(kind.total(database) == (line == "DEL c:a" ? 8 : 13))
    }

    @Test("what comes to a member that is looked for while its removal waits is kept")
    func cleared() throws {
        let kind = Kind.scores
        var database = ModelDatabase(mappings: kind.tables)
        let driver = MachineDriver(kind.tables)
        driver.send("ZADD z:a 100 m")
        _ = driver.cut { database.apply($0.tables) }
        driver.send("DEL z:a")
        driver.lookAgain(kind.row, table: "scores")
        driver.send(kind.add(1))
        driver.send("DEL z:a", .expired)
        for batch in driver.settle(.missing) { database.apply(batch.tables) }
        #expect(kind.total(database) == 1)
    }

    @Test("a refused add outlives two flushes")
    func refusedAndFlushed() throws {
        let kind = Kind.scores
        var database = ModelDatabase(mappings: kind.tables)
        let driver = MachineDriver(kind.tables)
        let letter = Self.added(kind)
        driver.send(kind.add(10))
        _ = driver.cut { _ in
            driver.send("FLUSHALL")
            return [letter]
        }
        try driver.read(.missing, after: [])
        driver.send("FLUSHALL")
        var ended: [DeadLetter] = []
        for batch in driver.settle(.missing) { database.apply(batch.tables) }
        #expect(kind.total(database) == nil)
        try driver.retry(letter)
        try driver.read(.missing, after: [])
        for batch in driver.settle(.missing) {
            var revived = RevivedLetters(batch.revived)
            for changes in batch.tables {
                let known = Dictionary(
                    uniqueKeysWithValues: database.kept[0].map { ($0.key, $0.value) })
                revived.add(
                    KeptPlan(changes, mapping: kind.tables[0], known: known), kind.tables[0])
            }
            ended += revived.ended
            database.apply(batch.tables)
        }
        #expect(ended.isEmpty || kind.total(database) == 10, "the letter ended, and 10 is nowhere")
    }

    @Test("to look for a row that is not there makes none")
    func nothing() throws {
        let kind = Kind.scores
        var database = ModelDatabase(mappings: kind.tables)
        let driver = MachineDriver(kind.tables)
        driver.lookAgain(kind.row, table: "scores")
        driver.send("DEL z:a", .expired)
        for batch in driver.settle(.missing) { database.apply(batch.tables) }
        #expect(kind.total(database) == nil)
    }

    @Test(
        "a sum that no integer holds does not wrap around",
        arguments: ["expired", "read", "late"], [true, false])
    func overflow(end: String, isWhole: Bool) throws {
        let kind = Kind.counters
        let big = Int64.max - 5
        let value = isWhole ? "\"\(big)\"" : "{\"add\":\"\(big)\"}"
        let letter = DeadLetter(
            table: "counters", identity: kind.row, operation: isWhole ? .put : .merge,
            value: Array("{\"value\":\(value)}".utf8), code: "22003", message: "")
        let driver = MachineDriver(kind.tables, letters: [letter])
        driver.send(kind.add(100))
        if end == "expired" { driver.send("DEL c:a", .expired) }
        let batches =
            end == "late"
            ? [driver.cut(isLate: true)].compactMap(\.self)
            : driver.settle(end == "read" ? Self.one(100) : .missing)
        for changes in batches.flatMap(\.tables) {
            for merge in changes.merges { #expect(merge.rows.values[0].integers[0] >= 0) }
            let known = [kind.row: Kept.gone]
            let plan = KeptPlan(changes, mapping: kind.tables[0], known: known)
            for merge in plan.changes.merges { #expect(merge.rows.values[0].integers[0] >= 0) }
            for row in 0..<plan.changes.puts.count {
                #expect(plan.changes.puts.values[0].integers[row] >= 0)
            }
        }
        // A late batch leaves a whole value to its letter.
        #expect(batches.flatMap(\.tables).isEmpty == (end == "late" && isWhole))
    }

    @Test("a row that was looked for in vain as its key expired outlives a flush in the same batch")
    func flushed() throws {
        let kind = Kind.scores
        var database = kind.database()
        let driver = MachineDriver(kind.tables)
        driver.send(kind.add(2))
        _ = driver.cut { database.apply($0.tables) }
        #expect(kind.total(database) == 102)
        driver.send("DEL z:a", .expired)
        driver.lookAgain(kind.row, table: "scores")
        try driver.read(.missing, after: [])
        driver.send("FLUSHALL")
        for batch in driver.settle(.missing) { database.apply(batch.tables) }
        #expect(kind.total(database) == 102)
    }

    @Test(
        "adds that a restart lost are counted where the row is read ahead", arguments: Kind.allCases
    )
    func unsaid(kind: Kind) throws {
        var database = kind.database(outlived: false)
        let name = kind == .scores ? "score" : "value"
        let letter = DeadLetter(
            table: kind.rawValue, identity: kind.row, operation: .put,
            value: Array("{\"\(name)\":\"110\"}".utf8), code: "23514", message: "")
        let first = MachineDriver(kind.tables, letters: [letter])
        first.send(kind.add(3))
        let late = first.cut(isLate: true)
        let driver = MachineDriver(kind.tables, loose: late?.loose ?? [], letters: [letter])
        try driver.read(Self.one(5), after: ["DEL \(kind.key)", kind.add(5)])
        driver.send("DEL \(kind.key)", .expired)
        driver.send(kind.add(5))
        var letters: [DeadLetter] = []
        for batch in driver.settle(Self.one(5)) {
            database.apply(batch.tables); letters += batch.deadLetters
        }
        #expect(driver.machine.counters.vanished > 0 || !letters.isEmpty, "not said")
    }

    @Test(
        "adds beside the letter of a total that is still to be read outlive a kill",
        arguments: Kind.allCases)
    func besideLetter(kind: Kind) throws {
        var database = kind.database()
        let first = MachineDriver(kind.tables, letters: [Self.added(kind)])
        first.send(kind.add(3))
        let late = first.cut(isLate: true) {
            database.apply($0.tables)
            return []
        }
        #expect(late?.revived.count == 1)
        let driver = MachineDriver(kind.tables, loose: late?.loose ?? [])
        driver.send(kind.add(5))
        for batch in driver.settle(Self.one(8)) { database.apply(batch.tables) }
        #expect(kind.total(database) == 118)
        #expect(driver.machine.counters.vanished == 0)
    }

    // The kind's table with other policies.
    private static func tables(_ kind: Kind, _ removal: RemovalPolicies) -> [TableMapping] {
        kind.tables.map {
            TableMapping(
                name: $0.name, keys: $0.keys, type: $0.type,
                columns: $0.deadline == nil ? $0.values : Array($0.values.prefix(1)),
                member: $0.member, deadline: $0.deadline == nil ? nil : "expires_at",
                removal: removal)
        }
    }

    @Test(
        "adds before a read that finds nothing are in a total that always stays",
        arguments: Kind.allCases)
    func alwaysKept(kind: Kind) throws {
        let tables = Self.tables(kind, .always(.keep))
        var database = ModelDatabase(mappings: tables)
        let first = MachineDriver(tables)
        first.send(kind == .counters ? "SET c:a 100" : "ZADD z:a 100 m")
        _ = first.cut { database.apply($0.tables) }
        let driver = MachineDriver(tables, strays: kind == .counters ? ["counters"] : [])
        driver.send(kind.add(3))
        driver.send(kind.add(4))
        try driver.read(.missing, after: [kind.add(6), "DEL x"])
        driver.send(kind.add(6))
        driver.send("DEL \(kind.key)")
        for batch in driver.settle(.missing) { database.apply(batch.tables) }
        #expect(kind.total(database) == 113)
    }

    @Test("what is added after a flush that deletes stays, though the row is looked for")
    func lookedForAfterFlush() throws {
        let kind = Kind.counters
        var removal = RemovalPolicies()
        removal.onFlush = .delete
        let tables = Self.tables(kind, removal)
        var database = ModelDatabase(mappings: tables)
        let driver = MachineDriver(tables)
        driver.send("SET c:a 100")
        _ = driver.cut { database.apply($0.tables) }
        driver.send("FLUSHALL")
        driver.lookAgain(kind.row, table: "counters")
        driver.send("INCRBY c:a 2")
        driver.send("DEL c:a", .expired)
        for batch in driver.settle(.missing) { database.apply(batch.tables) }
        #expect(kind.total(database) == 2)
    }

    @Test("a refused value that was set beside a deadline replaces what outlived its key")
    func refusedValue() throws {
        let kind = Kind.counters
        var database = kind.database()
        let driver = MachineDriver(kind.tables)
        driver.send("INCRBY c:a 5")
        _ = driver.cut { database.apply($0.tables) }
        driver.send("SET c:a 38 KEEPTTL")
        _ = driver.cut { _ in
            [
                DeadLetter(
                    table: "counters", identity: kind.row, operation: .merge,
                    value: Array("{\"value\":\"38\"}".utf8), code: "23514", message: "")
            ]
        }
        for batch in driver.settle(Self.one(38)) { database.apply(batch.tables) }
        #expect(kind.total(database) == 38)
    }

    @Test("what a command made of a score is said to be lost where its key goes before the read")
    func unreadChange() throws {
        let kind = Kind.scores
        let driver = MachineDriver(kind.tables)
        driver.send("ZADD z:a GT 150 m")
        try driver.read(Self.one(8), after: ["DEL z:a", kind.add(8)])
        driver.send("DEL z:a", .expired)
        driver.send(kind.add(8))
        _ = driver.settle(Self.one(8))
        #expect(driver.machine.counters.vanished > 0)
    }
}
