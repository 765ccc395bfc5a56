import SluiceCore
import SluiceTesting
import Testing

/// A key that is read page by page: what the stream said that goes does, what only a read did not find
/// stays when there is nobody left to say that it is gone.
@Suite("What surely goes of a key that is read in pages")
struct CertainRemovalTests {
    private static let scores = ModelTraffic.mappings.filter { $0.name == "scores" }
    private static let shared = ModelTraffic.mappings.filter { $0.name.hasPrefix("shared_") }
    private static let deleting = scores.map {
        TableMapping(
            name: $0.name, keys: $0.keys, type: $0.type, columns: $0.values, member: $0.member,
            removal: .always(.delete))
    }

    private static func page(_ members: String..., next: String = "7") -> ReadValue {
        .page(members.flatMap { [Array($0.utf8), Array("1".utf8)] }, next: Array(next.utf8))
    }

    /// A machine, and a database in which its tables have a key's members.
    private static func world(
        _ mappings: [TableMapping], _ line: String,
    ) -> (driver: MachineDriver, database: ModelDatabase) {
        var database = ModelDatabase(mappings: mappings)
        let driver = MachineDriver(mappings)
        driver.send(line)
        _ = driver.cut { database.apply($0.tables) }
        return (driver, database)
    }

    private static func members(_ database: ModelDatabase, _ mappings: [TableMapping]) -> [String] {
        let table = mappings.firstIndex { $0.name.hasSuffix("scores") } ?? 0
        return database.tables[table].keys.map { String(decoding: $0.member, as: UTF8.self) }
            .sorted()
    }

    @Test(
        "a key that goes by a flush, or by itself, between two pages keeps what no page has said",
        arguments: ["FLUSHALL", "DEL z:a"], ["ZPOPMIN z:a", "ZRANGESTORE z:a z:b 0 -1"])
    func goneBetweenPages(removal: String, change: String) throws {
        var (driver, database) = Self.world(Self.scores, "ZADD z:a 1 a 1 b 1 c 1 d")
        driver.send(change)
        try driver.read(Self.page("b"), after: [])
        driver.send(removal, .expired)
        _ = driver.cut { database.apply($0.tables) }
        #expect(Set(Self.members(database, Self.scores)).isSuperset(of: ["b", "c", "d"]))
    }

    @Test("a read that a failover and a gap cut short removes nothing, whatever the policies")
    func abandoned() throws {
        var (driver, database) = Self.world(Self.deleting, "ZADD z:a 1 a 1 b 1 c 1 d")
        let key = RowIdentity(key: Array("z:a".utf8))
        try driver.retry(
            DeadLetter(table: "scores", identity: key, code: "row.too_large", message: ""))
        try driver.read(Self.page("a"), after: [])
        driver.failOver()
        driver.resynchronise()
        _ = driver.cut { database.apply($0.tables) }
        #expect(Self.members(database, Self.deleting) == ["a", "b", "c", "d"])
    }

    @Test("so does one that follows a baseline", arguments: [false, true])
    func abandonedAfterBaseline(isGap: Bool) throws {
        var database = ModelDatabase(mappings: Self.deleting)
        let driver = MachineDriver(Self.deleting, isNew: true)
        driver.scan(["z:a"])
        _ = driver.endBaseline(
            Self.page("b", "c", "d", "e", next: "0"), duringSweep: { driver.send("ZPOPMIN z:a") },
            apply: { database.apply($0.tables) })
        try driver.read(Self.page("b"), after: [])
        driver.failOver()
        if isGap { driver.resynchronise() }
        _ = driver.cut(isLate: !isGap) { database.apply($0.tables) }
        #expect(Self.members(database, Self.deleting) == ["b", "c", "d", "e"])
    }

    /// The next page of the key finds it missing, or the stream says first that it went.
    @Test(
        "what the application removed goes, though the key that came after it expires between pages",
        arguments: ["ZPOPMIN z:a", "ZRANGESTORE z:a z:b 0 -1"], [false, true])
    func removed(change: String, isReadMissing: Bool) throws {
        var (driver, database) = Self.world(Self.scores, "ZADD z:a 1 old")
        driver.send("DEL z:a")
        driver.send("ZADD z:a 1 m 1 n")
        driver.send(change)
        try driver.read(Self.page("n"), after: [])
        if isReadMissing {
            try driver.read(
                .page([], next: Array("0".utf8)), type: Array("none".utf8), after: [],
                until: ["DEL z:a"])
        }
        driver.send("DEL z:a", .expired)
        _ = driver.cut { database.apply($0.tables) }
        let left = Self.members(database, Self.scores)
        #expect(left.contains("n") && !left.contains("old"))
    }

    @Test("so it does where tables share names and the rows are not known", arguments: [1, 2])
    func removedOfShared(trims: Int) throws {
        var (_, database) = Self.world(Self.shared, "ZADD y:a 1 old")
        let driver = MachineDriver(Self.shared)
        driver.send("DEL y:a")
        driver.send("ZADD y:a 1 m 1 n")
        for _ in 0..<trims {
            driver.send("ZPOPMIN y:a")
            try driver.read(.wrongType, scores: Self.page("n"), after: [])
        }
        driver.send("DEL y:a", .expired)
        _ = driver.cut { database.apply($0.tables) }
        #expect(Self.members(database, Self.shared) == ["n"])
    }

    @Test(
        "so it does, or is marked, when it is read first, and the stream says then that it was removed",
        arguments: [RemovalPolicy.delete, .mark("gone_at")])
    func readBeforeRemoval(policy: RemovalPolicy) throws {
        let mappings = Self.scores.map {
            TableMapping(
                name: $0.name, keys: $0.keys, type: $0.type, columns: $0.values,
                member: $0.member, removal: RemovalPolicies(onDelete: policy))
        }
        let (driver, _) = Self.world(mappings, "ZADD z:a 1 old")
        driver.send("ZPOPMIN z:a")
        let stream = ["DEL z:a", "ZADD z:a 1 m 1 n"]
        try driver.read(Self.page("n"), after: stream)
        for line in stream { driver.send(line) }
        driver.send("DEL z:a", .expired)
        let changes = try #require(driver.cut()?.tables.first)
        let rows = policy == .delete ? changes.clears : changes.clearMarks
        #expect(rows.identities.map(\.key) == [Array("z:a".utf8)])
        #expect(changes.clearsExcept.identities.contains { $0.member == Array("n".utf8) })
    }

    @Test("what outlived an earlier key does not go with it, where tables share names")
    func outlivedOfShared() throws {
        var (first, database) = Self.world(Self.shared, "ZADD y:a 1 old")
        first.send("DEL y:a", .expired)
        _ = first.cut { database.apply($0.tables) }
        let driver = MachineDriver(Self.shared)
        driver.send("ZADD y:a 1 l")
        _ = driver.cut { database.apply($0.tables) }
        driver.send("DEL y:a")
        driver.send("ZADD y:a 1 m 1 n")
        driver.send("ZPOPMIN y:a")
        try driver.read(.wrongType, scores: Self.page("n"), after: [])
        driver.send("DEL y:a", .expired)
        _ = driver.cut { database.apply($0.tables) }
        #expect(Self.members(database, Self.shared) == ["n", "old"])
    }

    @Test("what the application removed before a gap goes, whether or not the key was being read")
    func removedBeforeGap() throws {
        for isRead in [false, true] {
            var (driver, database) = Self.world(Self.scores, "ZADD z:a 1 old")
            driver.send("DEL z:a")
            driver.send("ZADD z:a 1 m 1 n")
            driver.send("ZPOPMIN z:a")
            if isRead { try driver.read(Self.page("n"), after: []) }
            driver.resynchronise()
            _ = driver.cut { database.apply($0.tables) }
            #expect(!Self.members(database, Self.scores).contains("old"), "read: \(isRead)")
        }
    }
}
