import SluiceCore
import SluiceTesting
import Testing

/// Keys of which the name is another type's when they are read.
@Suite("Keys that are replaced before they are read")
final class ReplacedKeyTests {
    private static let mappings = ModelTraffic.mappings.filter { $0.name.hasPrefix("shared_") }
    private var driver = MachineDriver(mappings)

    /// What makes a row of a table opaque, where nothing is known of it, and what puts another type there.
    private static let changes = [
        ("shared_hashes", "HDEL y:a f", "ZADD y:a 1 m"),
        ("shared_hashes", "HDEL y:a f", "SET y:a x"),
        ("shared_scores", "ZADD y:a GT 1 m", "HSET y:a n 1"),
        ("shared_scores", "ZRANGESTORE y:a z:a 0 -1", "HSET y:a n 1"),
        ("shared_scores", "ZRANGESTORE y:a z:a 0 -1", "SET y:a x"),
        ("shared_texts", "APPEND y:a +", "HSET y:a n 1"),
    ]

    @Test("a row whose key expired stays", arguments: changes)
    func expired(table: String, change: String, other: String) throws {
        driver.send(change)
        try driver.read(.wrongType, after: ["DEL y:a", other])
        driver.send("DEL y:a", .expired)
        driver.send(other)
        let batch = try #require(driver.cut())
        let changes = try #require(batch.tables.first { Self.mappings[$0.table].name == table })
        #expect(!changes.kept.isEmpty && changes.kept.allSatisfy { $0.state == .gone })
        expectNoRemoval(batch)
        #expect(batch.deadLetters.map(\.table) == [table])
        #expect(batch.deadLetters.allSatisfy { $0.code == "key.vanished" })
    }

    @Test("a row whose key was flushed stays", arguments: changes)
    func flushed(table: String, change: String, other: String) throws {
        driver.send(change)
        try driver.read(.wrongType, after: ["FLUSHALL", other])
        driver.send("FLUSHALL")
        driver.send(other)
        let batch = try #require(driver.cut())
        let changes = try #require(batch.tables.first { Self.mappings[$0.table].name == table })
        #expect(changes.kept.contains { $0.state == .gone })
        expectNoRemoval(batch)
        #expect(batch.deadLetters.map(\.table) == [table])
    }

    @Test("a row whose key the application emptied goes, whatever becomes of the other")
    func emptied() throws {
        driver.send("HDEL y:a f")
        try driver.read(.wrongType, after: ["ZADD y:a 1 m"], until: ["DEL y:a"])
        driver.send("ZADD y:a 1 m")
        driver.send("DEL y:a", .expired)
        let batch = try #require(driver.cut())
        let changes = batch.tables.first { Self.mappings[$0.table].name == "shared_hashes" }
        #expect(changes?.removes.identities.map(\.key) == [Array("y:a".utf8)])
        #expect(changes?.kept.isEmpty == true)
        #expect(batch.deadLetters.isEmpty)
    }

    @Test("the deadline of another type's key is not that of a row that stays")
    func deadline() throws {
        driver.send("DEL y:a", .expired)
        driver.send("ZADD y:a 1 m")
        driver.send("PEXPIREAT y:a 2000000000000")
        let batch = try #require(driver.cut())
        let changes = batch.tables.first { Self.mappings[$0.table].name == "shared_hashes" }
        #expect(changes?.kept.map(\.state) == [.gone])
        #expect(changes?.merges.isEmpty == true)
    }

    @Test(
        "what a command made of a key, without to say its type, leaves letters in all tables",
        arguments: [true, false])
    func untyped(isReplaced: Bool) throws {
        driver.send("RENAME y:b y:a")
        try driver.read(
            isReplaced ? .wrongType : .missing, strings: isReplaced ? .single([0x78]) : nil,
            after: isReplaced ? ["DEL y:a", "SET y:a x"] : ["DEL y:a"])
        driver.send("DEL y:a", .expired)
        if isReplaced { driver.send("SET y:a x") }
        let batch = try #require(driver.cut())
        // What a string was is replaced.
        #expect(
            batch.deadLetters.map(\.table)
                == Self.mappings.dropFirst(isReplaced ? 1 : 0).map(\.name))
        #expect(batch.deadLetters.allSatisfy { $0.code == "key.vanished" })
    }

    @Test(
        "such a letter stays when the name is changed again before it is read",
        arguments: ["RENAME y:b y:a", "HSET y:a n 1", "SET y:a x", "ZADD y:a GT 1 m"],
        ["PERSIST y:a", "APPEND y:a +", "HSET y:a n 1", "ZADD y:a 1 m", "DEL y:a"])
    func changedAgain(change: String, before: String) throws {
        driver.send(before, .expired)
        driver.send("RENAME y:b y:a")
        driver.send("DEL y:a", .expired)
        driver.send(change)
        if change.hasPrefix("RENAME") { try driver.read(.wrongType, after: []) }
        if change.hasPrefix("ZADD") { try driver.read(.single([0x31]), after: []) }
        let batch = try #require(driver.cut())
        let type = change.split(separator: " ")[0]
        // The row that is put needs none.
        let own = ["HSET": "shared_hashes", "SET": "shared_texts"][type]
        #expect(
            batch.deadLetters.map(\.table)
                == Self.mappings.map(\.name).filter { $0 != own }, "\(before), \(change)")
        // So that the letter stays when another type has the name.
        for changes in batch.tables where Self.mappings[changes.table].name != own {
            #expect(changes.kept.map(\.state) == [.gone], "\(before), \(change)")
        }
    }

    @Test("what was still to be read at a restart leaves such letters too")
    func restarted() throws {
        driver = MachineDriver(
            Self.mappings,
            loose: Self.mappings.map {
                LooseRow(
                    table: $0.name, identity: RowIdentity(key: Array("y:a".utf8)), offset: nil)
            })
        try driver.read(.wrongType, after: ["DEL y:a", "XADD y:a * f v"])
        driver.send("DEL y:a", .expired)
        driver.send("PERSIST y:a")
        let batch = try #require(driver.cut())
        #expect(batch.deadLetters.map(\.table) == Self.mappings.map(\.name))
    }

    @Test(
        "a key that goes while it is read page by page keeps what was read, and leaves a letter",
        arguments: [RemovalCause.expired, .deleted], [true, false])
    func pages(cause: RemovalCause, isShared: Bool) throws {
        let mappings = ModelTraffic.mappings.filter {
            isShared ? $0.name.hasPrefix("shared_") : $0.name == "scores"
        }
        let key = isShared ? "y:a" : "z:a"
        driver = MachineDriver(mappings)
        driver.send("ZRANGESTORE \(key) z:b 0 -1")
        try driver.read(.page([[0x6d], [0x31]], next: [0x63]), after: [])
        // Between the pages.
        let after = ["ZADD \(key) 2 n", "DEL \(key)"] + (isShared ? ["SET \(key) x"] : [])
        if isShared {
            try driver.read(.wrongType, after: after)
        } else {
            try driver.read(
                .page([], next: Array("0".utf8)), type: Array("none".utf8), after: after)
        }
        driver.send("ZADD \(key) 2 n")
        driver.send("DEL \(key)", cause)
        if isShared { driver.send("SET \(key) x") }
        let batch = try #require(driver.cut())
        let changes = try #require(
            batch.tables.first { mappings[$0.table].name.hasSuffix("scores") })
        let isKept = cause == .expired
        #expect(changes.kept.isEmpty != isKept && changes.kept.allSatisfy { $0.state == .gone })
        #expect(changes.puts.identities.map(\.member) == (isKept ? [[0x6d]] : []))
        #expect(changes.clears.count == (isKept ? 0 : 1))
        #expect(batch.deadLetters.map(\.code) == (isKept ? ["key.vanished"] : []))
    }

    @Test("a pattern that has the name of an option stores nothing")
    func sort() throws {
        let keys = KeyPattern(segments: [.placeholder(Column(name: "key", type: .text))])
        driver = MachineDriver([
            TableMapping(
                name: "texts", keys: keys, type: .string,
                columns: [Column(name: "value", type: .text)]),
            TableMapping(
                name: "lists", keys: keys, type: .list,
                columns: [Column(name: "items", type: .json)]),
        ])
        driver.send("SET GET x")
        driver.send("SET a x")
        driver.send("SORT l BY store GET # STORE a STORE b")
        try driver.read(.elements([[0x31]]), after: [])
        let batch = try #require(driver.cut())
        let (texts, lists) = (batch.tables[0], batch.tables[1])
        #expect(texts.puts.count == 2 && texts.removes.count == 0)
        #expect(lists.puts.identities.map(\.key) == [[0x62]])
        #expect(texts.swept.identities.map(\.key) == [[0x62]])
    }

    @Test("a replay takes no letter for new that its batch found there")
    func replay() throws {
        let row = RowIdentity(key: Array("y:a".utf8), member: [0x6D])
        let mappings = Self.mappings
        let table = try #require(mappings.firstIndex { $0.name == "shared_scores" })
        let letter = DeadLetter(table: "shared_scores", identity: row, code: "x", message: "")
        let other = DeadLetter(table: "shared_hashes", identity: row, code: "x", message: "")
        let checkpoint = Checkpoint(
            epoch: 1, sequence: 1, position: nil, isBaselineDone: true)
        var batch = Batch(from: checkpoint, to: checkpoint)
        var changes = TableChanges(table: table, mapping: mappings[table])
        try changes.swept.append(row, mappings[table])
        batch.tables = [changes]
        #expect(batch.refused(among: [letter, other], mappings) == [letter])
        batch.revived = [letter]
        #expect(batch.refused(among: [letter, other], mappings).isEmpty)
    }

    private func expectNoRemoval(_ batch: Batch) {
        for table in batch.tables {
            let name = Self.mappings[table.table].name
            #expect(table.removes.count == 0, "\(name)")
            #expect(table.clears.count == 0, "\(name)")
        }
    }
}
