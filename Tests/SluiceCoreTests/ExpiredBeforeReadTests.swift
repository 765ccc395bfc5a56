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

    @Test("rows of any type stay, though a successor never had the key that was read")
    func failOverOfOthers() throws {
        for (name, key, member, before, after) in [
            ("sessions", "h:a", "", "HSET h:a n 1", "HSET h:a n 2"),
            ("tags", "s:a", "m", "SADD s:a m", "SADD s:a m"),
        ] {
            let tables = ModelTraffic.mappings.filter { $0.name == name }.map {
                TableMapping(
                    name: name, keys: $0.keys, type: $0.type, fields: $0.fields,
                    columns: Array($0.values.prefix($0.fields.count)), member: $0.member)
            }
            let row = RowIdentity(key: Array(key.utf8), member: Array(member.utf8))
            var database = ModelDatabase(mappings: tables)
            let driver = MachineDriver(tables)
            driver.send(before)
            _ = driver.cut { database.apply($0.tables) }
            let values = database.tables[0][row]
            try #require(values != nil)
            let next = MachineDriver(tables)
            next.lookAgain(row, table: name)
            let value: ReadValue =
                name == "tags"
                ? Self.one(1) : .page([Array("n".utf8), Array("2".utf8)], next: [0x30])
            try next.read(value, after: ["DEL \(key)", after])
            next.send("DEL \(key)", .expired)
            next.failOver()
            try next.read(.missing, after: [])
            _ = next.cut { database.apply($0.tables) }
            #expect(database.tables[0][row] == values, "\(name)")
            #expect(next.machine.counters.doubtful > 0, "\(name)")
        }
    }
}
