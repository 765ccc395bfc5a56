import SluiceCore
import SluiceTesting
import Testing

/// Keys of which a command removes members without naming them, so that all of the key is read.
@Suite("Keys that are trimmed")
struct TrimmedKeyTests {
    private static let scores = ModelTraffic.mappings.filter { $0.name == "scores" }
    private static let shared = ModelTraffic.mappings.filter { $0.name.hasPrefix("shared_") }
    private static let last = Array("0".utf8)

    private static func page(_ members: String..., next: Bytes = last) -> ReadValue {
        .page(members.flatMap { [Array($0.utf8), Array("1".utf8)] }, next: next)
    }

    private static func changes(_ batch: Batch, _ mappings: [TableMapping]) -> TableChanges? {
        batch.tables.first { mappings[$0.table].name.hasSuffix("scores") }
    }

    /// Whether the name is another table's too.
    struct Setting: Sendable, CustomTestStringConvertible {
        let mappings: [TableMapping]
        let key: String
        var testDescription: String { key }

        static let all = [
            Setting(mappings: TrimmedKeyTests.scores, key: "z:a"),
            Setting(mappings: TrimmedKeyTests.shared, key: "y:a"),
        ]
    }

    @Test("rows that a read does not find go, unless they outlived a key", arguments: Setting.all)
    func trimmed(setting: Setting) throws {
        let (mappings, key) = (setting.mappings, setting.key)
        var database = ModelDatabase(mappings: mappings)
        let driver = MachineDriver(mappings)
        func settle() throws {
            let batch = try #require(driver.cut())
            database.apply(batch.tables)
        }
        driver.send("ZADD \(key) 1 old")
        try settle()
        driver.send("DEL \(key)", .expired)
        try settle()
        driver.send("ZADD \(key) 1 a 1 b")
        try settle()
        driver.send("ZPOPMIN \(key)")
        try driver.read(.wrongType, scores: Self.page("b"), after: [])
        try settle()
        let table = try #require(mappings.firstIndex { $0.name.hasSuffix("scores") })
        let members = database.tables[table].keys.map { String(decoding: $0.member, as: UTF8.self) }
        #expect(members.sorted() == ["b", "old"])
    }

    @Test("a key that went by itself before the read takes no row along", arguments: Setting.all)
    func expired(setting: Setting) throws {
        let driver = MachineDriver(setting.mappings)
        driver.send("ZPOPMIN \(setting.key)")
        let stream = ["DEL \(setting.key)", "ZADD \(setting.key) 1 n"]
        try driver.read(.wrongType, scores: Self.page("n"), after: stream)
        driver.send(stream[0], .expired)
        driver.send(stream[1])
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, setting.mappings))
        #expect(changes.clears.count == 0 && changes.sweptKeys.count == 0)
        #expect(changes.removes.count == 0 && changes.puts.count == 1)
        let key = Array(setting.key.utf8)
        #expect(changes.kept.contains { $0.identity == RowIdentity(key: key) && $0.state == .gone })
        // What it had when it went nobody knows.
        #expect(batch.deadLetters.map(\.code) == ["key.vanished"])
    }

    @Test("a key that expired, came back and was trimmed in one batch loses nothing of the first")
    func cameBack() throws {
        let driver = MachineDriver(Self.scores)
        driver.send("ZADD z:a 1 old")
        driver.send("DEL z:a", .expired)
        driver.send("ZADD z:a 1 a 1 b")
        driver.send("ZPOPMIN z:a")
        try driver.read(Self.page("b"), after: [])
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, Self.scores))
        #expect(changes.clears.count == 0 && changes.sweptKeys.count == 0)
        #expect(
            changes.puts.identities.map(\.member).sorted { $0.count < $1.count }
                == [Array("b".utf8), Array("old".utf8)])
        #expect(batch.deadLetters.isEmpty)
    }

    @Test("a key that expired, came back and was emptied in one batch loses nothing of the first")
    func emptied() throws {
        let driver = MachineDriver(Self.scores)
        driver.send("ZADD z:a 1 old")
        driver.send("DEL z:a", .expired)
        driver.send("ZADD z:a 1 a")
        driver.send("ZPOPMIN z:a")
        try driver.read(.page([], next: Self.last), after: [])
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, Self.scores))
        #expect(changes.clears.count == 0 && changes.sweptKeys.count == 0)
        #expect(changes.puts.identities.map(\.member) == [Array("old".utf8)])
        #expect(changes.kept.contains { $0.identity.member.isEmpty && $0.state == .gone })
        #expect(batch.deadLetters.isEmpty)
    }

    @Test("rows stay at a cut that comes before the place of the read, and go at the next")
    func putOff() throws {
        let driver = MachineDriver(Self.scores)
        driver.send("ZPOPMIN z:a")
        try driver.read(Self.page("b"), after: ["ZADD z:other 1 m"])
        let first = try #require(driver.cut(isLate: true))
        #expect(Self.changes(first, Self.scores)?.puts.count == 1)
        #expect(Self.changes(first, Self.scores)?.sweptKeys.count == 0)
        #expect(first.loose?.contains { $0.offset == nil } == true)
        driver.send("ZADD z:other 1 m")
        let second = try #require(driver.cut())
        let changes = try #require(Self.changes(second, Self.scores))
        #expect(changes.sweptKeys.identities.map(\.key) == [Array("z:a".utf8)])
        #expect(changes.clearsExcept.identities.map(\.member) == [Array("b".utf8)])
    }

    @Test("a key that is trimmed again while it is read page by page takes no row along")
    func trimmedAgain() throws {
        let driver = MachineDriver(Self.scores)
        let page = ReadValue.page([[0x61], [0x31]], next: Array("7".utf8))
        driver.send("ZPOPMIN z:a")
        try driver.read(page, after: [])
        driver.send("ZPOPMIN z:a")
        try driver.read(page, after: [])
        try driver.read(Self.page("b"), after: [])
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, Self.scores))
        #expect(changes.clears.count == 0 && changes.puts.count == 2)
        #expect(changes.sweptKeys.identities.map(\.key) == [Array("z:a".utf8)])
    }

    @Test("a key that is trimmed before a baseline reads it takes no row along that nobody knows")
    func ofBaseline() throws {
        let driver = MachineDriver(Self.scores, isNew: true)
        driver.scan(["z:a"])
        driver.send("ZPOPMIN z:a")
        _ = driver.cut()
        try driver.read(Self.page("b"), after: [])
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, Self.scores))
        // What the gap left without a key can't be told from what was trimmed: the baseline counts it.
        #expect(changes.clears.count == 0 && changes.sweptKeys.count == 0)
    }

    @Test(
        "a large key that expires while it is read leaves nothing behind that a flush takes for gone"
    )
    func expiredInScan() throws {
        let driver = MachineDriver(Self.scores)
        driver.send("ZPOPMIN z:a")
        try driver.read(.page([[0x61], [0x31]], next: Array("7".utf8)), after: [])
        driver.send("DEL z:a", .expired)
        driver.send("FLUSHALL")
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, Self.scores))
        #expect(changes.kept.contains { $0.identity.key.isEmpty && $0.state == .gone })
        #expect(!changes.kept.contains { $0.state == .ended })
    }

    @Test(
        "what went by itself before the read is marked or deleted as that says",
        arguments: [true, false])
    func marked(isExpiredMarked: Bool) throws {
        let mark = RemovalPolicy.mark("gone_at")
        let (deleted, expired): (RemovalPolicy, RemovalPolicy) =
            isExpiredMarked ? (.delete, mark) : (mark, .delete)
        let mappings = Self.scores.map {
            TableMapping(
                name: $0.name, keys: $0.keys, type: $0.type, columns: $0.values,
                member: $0.member,
                removal: RemovalPolicies(onDelete: deleted, onExpire: expired, onEvict: .keep))
        }
        let driver = MachineDriver(mappings)
        driver.send("ZPOPMIN z:a")
        let stream = ["DEL z:a", "ZADD z:a 1 n"]
        try driver.read(Self.page("n"), after: stream)
        driver.send(stream[0], .expired)
        driver.send(stream[1])
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, mappings))
        #expect(changes.clearMarks.count == (isExpiredMarked ? 1 : 0))
        #expect(changes.clears.count == (isExpiredMarked ? 0 : 1))
    }

    @Test("what the application removes goes as a whole, trimmed before or not")
    func removed() throws {
        let driver = MachineDriver(Self.scores)
        driver.send("ZPOPMIN z:a")
        try driver.read(Self.page("b"), after: [])
        driver.send("DEL z:a")
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, Self.scores))
        #expect(changes.clears.count == 1 && changes.sweptKeys.count == 0)
    }

    private static let letter = DeadLetter(
        table: "scores", identity: RowIdentity(key: Array("z:a".utf8), member: [0x6d]),
        operation: .put, value: Array("{}".utf8), code: "23514", message: "refused")

    @Test("a member with a dead letter goes with the key that a trim empties")
    func emptiedLetter() throws {
        let driver = MachineDriver(Self.scores, letters: [Self.letter])
        driver.send("ZPOPMIN z:a")
        try driver.read(.page([], next: Array("0".utf8)), type: Array("none".utf8), after: [])
        let batch = try #require(driver.cut())
        #expect(batch.revived.map(\.identity) == [Self.letter.identity])
    }

    @Test("a member with a dead letter stays with the others when the key went before it was read")
    func tentativeLetter() throws {
        let driver = MachineDriver(Self.scores, letters: [Self.letter])
        driver.send("ZPOPMIN z:a")
        try driver.read(Self.page("b"), after: ["DEL z:a", "ZADD z:a 1 b"])
        let early = driver.cut()
        driver.send("DEL z:a", .expired)
        driver.send("ZADD z:a 1 b")
        let batch = try #require(driver.cut())
        for batch in [early, batch].compactMap({ $0 }) {
            #expect(!batch.revived.contains { $0.identity == Self.letter.identity })
            let changes = Self.changes(batch, Self.scores)
            #expect(changes?.swept.count ?? 0 == 0 && changes?.sweptKeys.count ?? 0 == 0)
        }
    }

    @Test(
        "a key that goes by itself between two pages of a read keeps the rows that no page said",
        arguments: ["DEL z:a", "FLUSHALL"], [true, false])
    func goneBetweenPages(removal: String, isCutBefore: Bool) throws {
        let driver = MachineDriver(Self.scores)
        driver.send("ZPOPMIN z:a")
        try driver.read(.page([[0x61], [0x31]], next: Array("7".utf8)), after: [])
        let stream = ["ZADD z:other 1 m", removal, "ZADD z:a 1 n"]
        try driver.read(Self.page("n"), after: stream)
        driver.send(stream[0])
        if isCutBefore {
            // It has waited for long enough by now.
            let cut = driver.cut()
            let early = try #require(cut)
            #expect(Self.changes(early, Self.scores)?.sweptKeys.count ?? 0 == 0)
        }
        driver.send(removal, .expired)
        driver.send(stream[2])
        let batch = try #require(driver.cut())
        #expect(batch.deadLetters.map(\.code) == ["key.vanished"])
        let changes = try #require(Self.changes(batch, Self.scores))
        #expect(changes.sweptKeys.count == 0 && changes.removes.count == 0)
    }

    @Test("what a key had that expires before a baseline reads it stays")
    func expiredBeforeBaseline() throws {
        let driver = MachineDriver(Self.scores, isNew: true)
        driver.scan(["z:a"])
        driver.send("ZADD z:a 1 m")
        _ = driver.cut()
        let stream = ["DEL z:a", "ZADD z:a 1 n"]
        try driver.read(Self.page("n"), after: stream)
        driver.send(stream[0], .expired)
        driver.send(stream[1])
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, Self.scores))
        #expect(changes.removes.count == 0 && changes.swept.count == 0)
        #expect(changes.clears.count == 0 && changes.sweptKeys.count == 0)
        #expect(changes.kept.contains { $0.identity.member.isEmpty && $0.state == .gone })
    }

    private static func isToBeRead(_ batch: Batch) -> Bool {
        let key = RowIdentity(key: Array("z:a".utf8))
        return batch.loose?.contains { $0.identity == key && $0.offset == nil } == true
    }

    @Test("a key that is trimmed while a baseline ends is read once more, and its rows go then")
    func readOnceMore() throws {
        let driver = MachineDriver(Self.scores, isNew: true)
        driver.scan(["z:a"])
        let last = driver.endBaseline(Self.page("b")) { driver.send("ZPOPMIN z:a") }
        let batch = try #require(last)
        // The database had no row without a key when it was asked, so that the table has none but these.
        #expect(batch.to.strays.isEmpty)
        #expect(Self.isToBeRead(batch))
        #expect(Self.changes(batch, Self.scores)?.sweptKeys.count ?? 0 == 0)
        try driver.read(Self.page("b"), after: [])
        let next = try #require(driver.cut())
        let changes = try #require(Self.changes(next, Self.scores))
        #expect(changes.sweptKeys.identities.map(\.key) == [Array("z:a".utf8)])
    }

    @Test("what comes to a trimmed key until it is read once more is committed")
    func readOnceMoreLoses() throws {
        var database = ModelDatabase(mappings: Self.scores)
        let driver = MachineDriver(Self.scores, isNew: true)
        driver.scan(["z:a"])
        var isTrimmed = false
        let last = driver.endBaseline(
            Self.page("b"),
            duringSweep: { driver.send("ZPOPMIN z:a") },
            afterRead: {
                // The second read is of the trim.
                if isTrimmed { driver.send("ZADD z:a 99 k") }
                isTrimmed = true
            },
            apply: { database.apply($0.tables) })
        let batch = try #require(last)
        #expect(batch.loose?.contains { $0.offset == nil } == true)
        driver.send("DEL z:a", .expired)
        _ = driver.cut { database.apply($0.tables) }
        let row = RowIdentity(key: Array("z:a".utf8), member: [0x6b])
        #expect(database.tables[0][row] == [.real(99)])
    }

    @Test("a pass that deletes rows without a key has trimmed keys read once more")
    func readAfterPass() throws {
        let driver = MachineDriver(Self.scores, isNew: true)
        driver.scan(["z:a"])
        let missing = RowIdentity(key: Array("z:gone".utf8), member: [0x6d])
        _ = driver.endBaseline(Self.page("b"), missing: [missing])
        driver.send("ZADD z:a 1 c")
        driver.reconcile()
        let last = driver.endPass(rows: [missing]) {
            driver.send("ZPOPMIN z:a")
            return Self.page("b")
        }
        let batch = try #require(last)
        #expect(batch.to.strays.isEmpty)
        #expect(Self.isToBeRead(batch))
    }

    @Test("what an application removed before a trim goes, also when the key expires amid the read")
    func certainBetweenPages() throws {
        let driver = MachineDriver(Self.shared)
        driver.send("DEL y:a")
        driver.send("ZADD y:a 1 a 1 b")
        driver.send("ZPOPMIN y:a")
        let stream = ["DEL y:a", "ZADD y:a 1 n"]
        try driver.read(
            .wrongType, scores: .page([[0x62], [0x31]], next: Array("7".utf8)), after: [])
        try driver.read(.wrongType, scores: Self.page("n"), after: stream)
        driver.send(stream[0], .expired)
        driver.send(stream[1])
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, Self.shared))
        #expect(changes.sweptKeys.count + changes.clears.count == 1)
    }

    @Test(
        "what an application removed before a trim goes, also when the key expires before its last page",
        arguments: [false, true])
    func certainBeforeLastPage(isTrimmedAgain: Bool) throws {
        let driver = MachineDriver(Self.scores)
        driver.send("DEL z:a")
        driver.send("ZADD z:a 1 m 1 n")
        for _ in 0..<(isTrimmedAgain ? 2 : 1) {
            driver.send("ZPOPMIN z:a")
            try driver.read(Self.page("n", next: Array("7".utf8)), after: [])
        }
        driver.send("DEL z:a", .expired)
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, Self.scores))
        #expect(changes.clears.identities == [RowIdentity(key: Array("z:a".utf8))])
        #expect(changes.clearsExcept.identities.map(\.member) == [[0x6e]])
        #expect(changes.puts.identities.map(\.member) == [[0x6e]])
        #expect(changes.kept.contains { $0.identity.member.isEmpty && $0.state == .gone })
        #expect(batch.deadLetters.map(\.code) == ["key.vanished"])
    }

    @Test("in a table with rows without a key, a trim takes along only rows that are known")
    func strays() throws {
        let driver = MachineDriver(Self.scores, isNew: true)
        driver.scan(["z:a"])
        driver.send("ZADD z:a 1 a 2 b")
        driver.send("ZPOPMIN z:a")
        _ = driver.cut()
        try driver.read(Self.page("b"), after: [])
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, Self.scores))
        #expect(changes.clears.count == 0 && changes.sweptKeys.count == 0)
        #expect(changes.swept.identities.map(\.member) == [[0x61]])
    }
}
