import SluiceCore
import SluiceTesting
import Testing

/// Totals that are read at a place of the stream before which their keys had expired.
@Suite("Totals of keys that expire before they are read")
struct ExpiredBeforeReadTests {
    private typealias Kind = TotalReadTests.Kind

    private static func one(_ number: Int) -> ReadValue { .single(Array("\(number)".utf8)) }

    @Test(
        "a total goes on, though its key expired and came back before it was read",
        arguments: TotalReadTests.Kind.allCases, [0, 7])
    func readAhead(kind: TotalReadTests.Kind, before: Int) throws {
        var database = kind.database(outlived: false)
        let driver = MachineDriver(kind.tables)
        driver.lookAgain(kind.row, table: kind.rawValue)
        let stream = [kind.add(before), "DEL \(kind.key)", kind.add(3)]
        try driver.read(Self.one(3), after: stream)
        for line in stream { driver.send(line, .expired) }
        driver.send(kind.add(20))
        for batch in driver.settle(Self.one(23)) { database.apply(batch.tables) }
        #expect(kind.total(database) == 123 + before)
        #expect(database.kept(0, kind.row) == .back)
    }

    @Test(
        "a row whose key expired stays, though a successor never had the key that was read",
        arguments: TotalReadTests.Kind.allCases)
    func failOver(kind: TotalReadTests.Kind) throws {
        var database = kind.database(outlived: false)
        let driver = MachineDriver(kind.tables)
        driver.lookAgain(kind.row, table: kind.rawValue)
        try driver.read(Self.one(3), after: ["DEL \(kind.key)", kind.add(3)])
        driver.send("DEL \(kind.key)", .expired)
        driver.failOver()
        // The stream says what came to a counter since.
        if kind == .scores { try driver.read(.missing, after: []) }
        _ = driver.cut { database.apply($0.tables) }
        #expect(kind.total(database) == 100)
    }

    /// A hash and a set, of which the application has two versions.
    private static let others: [(name: String, row: RowIdentity, before: String, after: String)] = [
        ("sessions", RowIdentity(key: Array("h:a".utf8)), "HSET h:a n 1", "HSET h:a n 2"),
        (
            "tags", RowIdentity(key: Array("s:a".utf8), member: Array("m".utf8)), "SADD s:a m",
            "SADD s:a m"
        ),
    ]

    // A database with the first version, and a machine that does not know it.
    private static func world(
        _ name: String, _ line: String,
    ) -> (driver: MachineDriver, database: ModelDatabase) {
        let tables = ModelTraffic.mappings.filter { $0.name == name }.map {
            TableMapping(
                name: name, keys: $0.keys, type: $0.type, fields: $0.fields,
                columns: Array($0.values.prefix($0.fields.count)), member: $0.member)
        }
        var database = ModelDatabase(mappings: tables)
        let first = MachineDriver(tables)
        first.send(line)
        _ = first.cut { database.apply($0.tables) }
        return (MachineDriver(tables), database)
    }

    private static func value(_ name: String, _ number: String) -> ReadValue {
        name == "tags"
            ? one(1) : .page([Array("n".utf8), Array(number.utf8)], next: [0x30])
    }

    @Test("rows of any type stay, though a successor never had the key that was read")
    func failOverOfOthers() throws {
        for (name, row, before, after) in Self.others {
            for cause in [RemovalCause.expired, nil] {
                var (driver, database) = Self.world(name, before)
                let values = database.tables[0][row]
                try #require(values != nil)
                let removal = before.contains("h:a") ? "DEL h:a" : "DEL s:a"
                driver.lookAgain(row, table: name)
                try driver.read(Self.value(name, "2"), after: [removal, after])
                driver.send(removal, cause)
                driver.failOver()
                try driver.read(.missing, after: [])
                _ = driver.cut { database.apply($0.tables) }
                #expect(database.tables[0][row] == values, "\(name)")
                #expect(driver.machine.counters.doubtful > 0, "\(name)")
            }
        }
    }

    @Test("what the application removes afterwards goes, with a failover or without")
    func removedAfterwards() throws {
        let (name, row, before, after) = Self.others[0]
        var (driver, database) = Self.world(name, before)
        driver.lookAgain(row, table: name)
        try driver.read(Self.value(name, "2"), after: ["DEL h:a", after])
        driver.send("DEL h:a", .expired)
        driver.send(after)
        driver.send("HDEL h:a n")
        try driver.read(.missing, after: [])
        _ = driver.cut { database.apply($0.tables) }
        #expect(database.tables[0][row] == nil)
        #expect(driver.machine.counters.doubtful == 0)

        (driver, database) = Self.world(name, before)
        driver.lookAgain(row, table: name)
        let stream = ["DEL h:a", after, "DEL h:a", "HSET h:a n 3"]
        try driver.read(Self.value(name, "3"), after: stream)
        driver.send("DEL h:a", .expired)
        driver.send(after)
        driver.send("DEL h:a")
        driver.failOver()
        try driver.read(.missing, after: [])
        _ = driver.cut { database.apply($0.tables) }
        #expect(database.tables[0][row] == nil)
    }

    @Test("a member that the application removes afterwards goes, though a failover comes then")
    func memberRemovedAfterwards() throws {
        let (name, row, before, after) = Self.others[1]
        for removal in ["SREM s:a m", "DEL s:a"] {
            var (driver, database) = Self.world(name, before)
            driver.lookAgain(row, table: name)
            try driver.read(Self.value(name, ""), after: ["DEL s:a", after, removal, after])
            driver.send("DEL s:a", .expired)
            driver.send(after)
            driver.send(removal)
            driver.failOver()
            try driver.read(.missing, after: [])
            for batch in driver.settle(nil) { database.apply(batch.tables) }
            #expect(database.tables[0][row] == nil, "\(removal)")
        }
    }

    @Test(
        "members of a key that expired stay, though a successor never had the key that was read",
        arguments: ["DEL z:a", "FLUSHALL"])
    func failOverOfKeys(removal: String) throws {
        let kind = Kind.scores
        var database = kind.database(outlived: false)
        let driver = MachineDriver(kind.tables)
        driver.send("ZPOPMIN z:a")
        let page = ReadValue.page([Array("m".utf8), Array("3".utf8)], next: [0x30])
        try driver.read(page, after: [removal, kind.add(3)])
        driver.send(removal, .expired)
        driver.failOver()
        try driver.read(.missing, after: [])
        for batch in driver.settle(nil) { database.apply(batch.tables) }
        #expect(kind.total(database) == 100)
    }

    /// That a key went before its row was read is remembered no longer than what was read.
    enum Afterwards: CaseIterable {
        case committed, removed, lostLater, readAgain, removedUnread
    }

    private static let lists = [
        TableMapping(
            name: "lists",
            keys: KeyPattern(segments: [
                .literal(Array("l:".utf8)), .placeholder(Column(name: "id", type: .text)),
            ]), type: .list, columns: [Column(name: "items", type: .json)])
    ]

    @Test("a list that the application empties afterwards goes", arguments: Afterwards.allCases)
    func emptied(afterwards: Afterwards) throws {
        let row = RowIdentity(key: Array("l:a".utf8))
        let value = ReadValue.elements([Array("y".utf8)])
        var database = ModelDatabase(mappings: Self.lists)
        let first = MachineDriver(Self.lists)
        first.send("RPUSH l:a x")
        for batch in first.settle(value) { database.apply(batch.tables) }
        #expect(database.tables[0][row] != nil)
        let driver = MachineDriver(Self.lists)
        driver.lookAgain(row, table: "lists")
        try driver.read(value, after: ["DEL l:a", "RPUSH l:a y"])
        driver.send("DEL l:a", .expired)
        switch afterwards {
        case .committed:
            driver.send("RPUSH l:a y")
            _ = driver.cut { database.apply($0.tables) }
        case .removed:
            driver.send("RPUSH l:a y")
            driver.send("DEL l:a")
        case .lostLater:
            driver.send("RPUSH l:a y")
            _ = driver.cut { database.apply($0.tables) }
            driver.send("RPUSH l:a z")
            try driver.read(value, after: ["LTRIM l:a 1 0", "RPUSH l:a y"])
            driver.send("LTRIM l:a 1 0")
            driver.failOver()
        case .readAgain:
            driver.failOver()
            try driver.read(value, after: [])
            _ = driver.cut { database.apply($0.tables) }
        case .removedUnread:
            driver.failOver()
            driver.send("DEL l:a")
        }
        driver.send("RPUSH l:a z")
        driver.send("LTRIM l:a 1 0")
        try driver.read(.missing, after: [])
        driver.send("PING")
        for batch in driver.settle(nil) { database.apply(batch.tables) }
        #expect(database.tables[0][row] == nil)
        #expect(driver.machine.counters.doubtful == 0)
    }
}
