import SluiceCore
import SluiceTesting
import Testing

/// Rows that stay in the database when their key goes, and what comes to the key's name after.
@Suite("Rows that outlive their keys")
struct OutlivedKeyTests {
    private static let shared = ModelTraffic.mappings.filter { $0.name.hasPrefix("shared_") }
    private static let scores = ModelTraffic.mappings.filter { $0.name == "scores" }
    private static let key = Array("z:a".utf8)

    private static func scores(_ removal: RemovalPolicies) -> [TableMapping] {
        scores.map {
            TableMapping(
                name: $0.name, keys: $0.keys, type: $0.type, columns: $0.values,
                member: $0.member, removal: removal)
        }
    }

    private static func changes(_ batch: Batch, _ mappings: [TableMapping]) -> TableChanges? {
        batch.tables.first { mappings[$0.table].name.hasSuffix("scores") }
    }

    // A key that expired and stays, and one that is stored there and goes before it is read.
    private static func vanished() throws -> (driver: MachineDriver, letter: DeadLetter) {
        let driver = MachineDriver(scores)
        driver.send("ZADD z:a 1 m")
        driver.send("DEL z:a", .expired)
        let first = try #require(driver.cut())
        #expect(changes(first, scores)?.kept.contains { $0.identity.key == key } == true)
        driver.send("ZRANGESTORE z:a z:b 0 -1")
        driver.send("DEL z:a", .expired)
        let second = try #require(driver.cut())
        let letter = try #require(second.deadLetters.first)
        #expect(letter.code == "key.vanished" && letter.identity.key == key)
        return (driver, letter)
    }

    @Test("what a key had that went before it was read is not there to be tried again")
    func vanishedLetter() throws {
        let (driver, letter) = try Self.vanished()
        try driver.retry(letter)
        #expect(driver.nextRead() == nil)
    }

    @Test(
        "a letter of a key that is gone takes no row along that outlived it",
        arguments: [true, false])
    func letter(isThere: Bool) throws {
        let (driver, letter) = try Self.vanished()
        try driver.retry(
            DeadLetter(
                table: letter.table, identity: letter.identity, code: "row.too_large", message: ""))
        let first = Array("0".utf8)
        try driver.read(isThere ? .page([[0x6e], [0x31]], next: first) : .missing, after: [])
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, Self.scores))
        // The letter's own row has no member.
        #expect(changes.clears.count == 0)
        #expect(changes.removes.identities.filter { !$0.member.isEmpty }.isEmpty)
        #expect(changes.sweptKeys.identities.map(\.key) == [Self.key])
        #expect(changes.puts.count == (isThere ? 1 : 0))
    }

    @Test("a member that comes while its key is looked for takes no row along that outlived it")
    func looked() throws {
        let (driver, letter) = try Self.vanished()
        try driver.retry(
            DeadLetter(
                table: letter.table, identity: letter.identity, code: "row.too_large", message: ""))
        driver.send("ZADD z:a 1 n")
        try driver.read(.page([[0x6e], [0x31]], next: Array("0".utf8)), after: [])
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, Self.scores))
        #expect(changes.clears.count == 0)
        #expect(changes.sweptKeys.identities.map(\.key) == [Self.key])
    }

    @Test("what outlived its key since the last cut stays when the name comes back before a read")
    func keptAndCameBack() throws {
        let driver = MachineDriver(Self.shared)
        driver.send("DEL y:a", .expired)
        driver.send("RENAME y:b y:a")
        let page = ReadValue.page([[0x6e], [0x32]], next: Array("0".utf8))
        try driver.read(.wrongType, scores: page, after: ["DEL y:a", "ZADD y:a 2 n"])
        driver.send("DEL y:a")
        driver.send("ZADD y:a 2 n")
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, Self.shared))
        #expect(changes.clears.count == 0)
        #expect(!changes.sweptKeys.identities.map(\.key).contains(Array("y:a".utf8)))
        #expect(changes.kept.contains { $0.state == .gone && $0.identity.member.isEmpty })
    }

    @Test("a key that goes while a baseline looks for it leaves no letter where all stays")
    func baselineOfKept() throws {
        let driver = MachineDriver(Self.scores(.always(.keep)), isNew: true)
        driver.scan(["z:a"])
        try driver.read(.missing, after: ["DEL z:a"])
        driver.send("DEL z:a")
        let batch = try #require(driver.cut())
        #expect(batch.deadLetters.isEmpty)
    }

    @Test("what was looked for stays after a failover if it outlived its key")
    func failedOver() throws {
        let driver = MachineDriver(Self.scores)
        let row = RowIdentity(key: Self.key, member: [0x6d])
        try driver.retry(DeadLetter(table: "scores", identity: row, code: "x", message: ""))
        try driver.read(.missing, after: ["ZADD z:b 1 m"])
        // The successor never had what the read was after.
        driver.failOver()
        try driver.read(.missing, after: [])
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, Self.scores))
        #expect(changes.removes.count == 0)
        #expect(changes.swept.identities == [row])
    }

    @Test("a flush keeps rows also where all other causes delete them", arguments: [true, false])
    func flushed(isRead: Bool) throws {
        let mappings = Self.scores(
            RemovalPolicies(onDelete: .delete, onExpire: .delete, onEvict: .delete))
        let driver = MachineDriver(mappings)
        driver.send("ZRANGESTORE z:a z:b 0 -1")
        if isRead { try driver.read(.missing, after: ["FLUSHALL"]) }
        driver.send("FLUSHALL")
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, mappings))
        #expect(changes.clears.count == 0 && changes.removes.count == 0)
        #expect(changes.kept.contains { $0.state == .gone && $0.identity.key.isEmpty })
        #expect(batch.deadLetters.map(\.code) == ["key.vanished"])
    }

    @Test("a flush marks rows also where all other causes delete them")
    func flushMarks() throws {
        let mappings = Self.scores(
            RemovalPolicies(
                onDelete: .delete, onExpire: .delete, onEvict: .delete,
                onFlush: .mark("gone_at")))
        let driver = MachineDriver(mappings)
        driver.send("ZRANGESTORE z:a z:b 0 -1")
        try driver.read(.missing, after: ["FLUSHALL"])
        driver.send("FLUSHALL")
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, mappings))
        #expect(changes.clears.count == 0 && changes.removes.count == 0)
        #expect(changes.wipe == .mark("gone_at"))
    }

    @Test(
        "what a command stored was nothing when another type has the name after it",
        arguments: ["ZRANGESTORE y:a z:b 0 -1"], ["HSET y:a n 1", "INCR y:a", "SET y:a x", nil])
    func stored(change: String, other: String?) throws {
        let driver = MachineDriver(Self.shared)
        driver.send(change)
        if let other { driver.send(other) }
        driver.send("DEL y:a")
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, Self.shared))
        // Whether they outlived an earlier key, the database knows.
        #expect(changes.sweptKeys.count == (other == nil ? 0 : 1))
        #expect(changes.clears.count == (other == nil ? 1 : 0))
    }

    @Test(
        "what was lost of a row that outlived its key leaves its letter, before a restart too",
        arguments: [true, false])
    func forgotten(isRemoved: Bool) throws {
        let driver = MachineDriver(Self.shared)
        driver.send("ZADD y:a 1 m")
        driver.send("DEL y:a", .expired)
        driver.send("RENAME y:b y:a")
        // What has its name is the application's to remove; else a cut does not wait for the read.
        if isRemoved { driver.send("DEL y:a") }
        let batch = try #require(driver.cut(isLate: !isRemoved))
        #expect((batch.loose?.isEmpty == false) != isRemoved)
        let letters = batch.deadLetters.filter { $0.table == "shared_scores" }
        #expect(letters.map(\.code) == ["key.vanished"])
        #expect(letters.map(\.identity) == [RowIdentity(key: Array("y:a".utf8))])
        #expect(Self.changes(batch, Self.shared)?.clears.count == 0)
    }

    @Test("a baseline leaves rows as they are of which the name is another's now")
    func baseline() throws {
        let driver = MachineDriver(Self.shared, isNew: true)
        driver.scan(["y:a"])
        try driver.read(.wrongType, strings: .single([0x78]), after: [])
        let batch = try #require(driver.cut())
        // What the database remembers of them stays too.
        #expect(batch.tables.map { Self.shared[$0.table].name } == ["shared_texts"])
        #expect(batch.deadLetters.isEmpty)
    }

    @Test("a baseline takes no member along whose key expired while it was scanned")
    func scanned() throws {
        let driver = MachineDriver(Self.scores, isNew: true)
        driver.send("DEL z:a", .expired)
        driver.scan(["z:a"], isAfterCut: false)
        // The stream has said all of it already.
        #expect(driver.nextRead(asksCut: false) == nil)
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, Self.scores))
        #expect(changes.kept.map(\.state) == [.gone])
        #expect(changes.clears.count == 0 && changes.sweptKeys.count == 0)
    }

    @Test("a letter stays with its row where removals mark")
    func markedLetter() throws {
        let mappings = Self.shared.map {
            TableMapping(
                name: $0.name, keys: $0.keys, type: $0.type, fields: $0.fields,
                columns: $0.type == .hash ? Array($0.values.prefix(2)) : $0.values,
                member: $0.member, removal: RemovalPolicies(onDelete: .mark("gone_at")))
        }
        let driver = MachineDriver(mappings)
        driver.send("ZADD y:a nan m")
        driver.send("DEL y:a", .expired)
        #expect(driver.cut()?.deadLetters.count == 1)
        driver.send("SET y:a x")
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, mappings))
        // Whether it outlived its key, and its letter stays, the database knows.
        #expect(changes.swept.identities.map(\.member).contains([0x6d]))
    }

    @Test(
        "what came and went while it was looked for leaves a letter, unless that says it all",
        arguments: ["ZADD z:a 1 m", "ZADD z:a GT 1 m", "HSET y:a n 1", "APPEND y:a +"])
    func skipped(command: String) throws {
        let words = command.split(separator: " ")
        let tables = ["ZADD": "scores", "HSET": "shared_hashes", "APPEND": "shared_texts"]
        let table = try #require(tables[String(words[0])])
        let driver = MachineDriver(table == "scores" ? Self.scores : Self.shared)
        let row = RowIdentity(
            key: Array(words[1].utf8), member: table == "scores" ? [0x6d] : [])
        try driver.retry(DeadLetter(table: table, identity: row, code: "x", message: ""))
        try driver.read(.missing, after: [command, "DEL \(words[1])"])
        driver.send(command)
        driver.send("DEL \(words[1])", .expired)
        let batch = try #require(driver.cut())
        if command == "ZADD z:a 1 m" {
            // That says all there was.
            #expect(batch.tables.flatMap(\.puts.identities) == [row])
        } else {
            #expect(batch.deadLetters.map(\.code) == ["key.vanished"])
            #expect(batch.deadLetters.map(\.table) == [table])
        }
    }

    @Test(
        "what a key had that went before it was read, and came back before that, leaves a letter",
        arguments: ["DEL z:a", "FLUSHALL"], [RemovalCause.expired, .deleted])
    func cameBack(removal: String, cause: RemovalCause) throws {
        let driver = MachineDriver(Self.scores)
        driver.send("ZRANGESTORE z:a z:b 0 -1")
        let page = ReadValue.page([[0x6e], [0x32]], next: Array("0".utf8))
        try driver.read(page, after: [removal, "ZADD z:a 2 n"])
        driver.send(removal, cause)
        driver.send("ZADD z:a 2 n")
        let batch = try #require(driver.cut())
        let isLost = cause == .expired || removal == "FLUSHALL"
        #expect(batch.deadLetters.map(\.code) == (isLost ? ["key.vanished"] : []))
    }

    @Test(
        "a key that came back by members alone before it was read takes no row along that outlived it",
        arguments: [true, false], [true, false])
    func cameBackByMembers(isRemoved: Bool, isLate: Bool) throws {
        let driver = MachineDriver(Self.shared)
        driver.send("RENAME y:b y:a")
        let page = ReadValue.page([[0x6e], [0x32]], next: Array("0".utf8))
        let after = (isRemoved ? ["DEL y:a"] : []) + ["ZADD y:a 2 n"]
        try driver.read(.wrongType, scores: page, after: after)
        let early = isLate ? driver.cut(isLate: true) : nil
        for command in after { driver.send(command) }
        let batch = try #require(early ?? driver.cut())
        let changes = try #require(Self.changes(batch, Self.shared))
        let isSwept = isRemoved || isLate
        #expect(changes.sweptKeys.identities.map(\.key).contains(Array("y:a".utf8)) == isSwept)
        #expect(changes.clears.count == (isSwept ? 0 : 1))
        #expect(changes.puts.identities.map(\.member) == [[0x6e]])
    }

    @Test("what was looked for before a restart stays if it outlived its key")
    func restored() throws {
        let row = RowIdentity(key: Self.key, member: [0x6d])
        let driver = MachineDriver(
            Self.scores, loose: [LooseRow(table: "scores", identity: row, offset: nil)])
        try driver.read(.missing, after: [])
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, Self.scores))
        #expect(changes.removes.count == 0)
        #expect(changes.swept.identities == [row])
    }

    @Test(
        "a hash that was emptied is in doubt only if it matters what emptied it",
        arguments: [true, false], [true, false])
    func emptied(isRestored: Bool, isAlike: Bool) throws {
        let mappings = ModelTraffic.mappings.filter { $0.name == "sessions" }.map {
            TableMapping(
                name: $0.name, keys: $0.keys, type: $0.type, fields: $0.fields,
                columns: Array($0.values.prefix(2)), deadline: "expires_at",
                removal: isAlike
                    ? RemovalPolicies(onDelete: .delete, onExpire: .delete, onEvict: .delete)
                    : RemovalPolicies(onDelete: .delete))
        }
        let row = RowIdentity(key: Array("h:a".utf8))
        let loose = LooseRow(table: "sessions", identity: row, offset: nil)
        let driver = MachineDriver(
            mappings, loose: isRestored ? [loose] : [], mayFieldsExpire: true)
        if !isRestored { driver.send("HDEL h:a n") }
        try driver.read(.missing, after: [])
        let batch = try #require(driver.cut())
        let changes = try #require(batch.tables.first)
        #expect(changes.kept.map(\.state) == (isAlike ? [] : [.doubtful]))
        #expect(changes.removes.count + changes.swept.count == (isAlike ? 1 : 0))
    }

    @Test("the deadline of another type's key puts no row with a letter in doubt")
    func deadline() throws {
        let driver = MachineDriver(Self.shared)
        driver.send("HSET y:a n word")
        driver.send("DEL y:a", .expired)
        let first = try #require(driver.cut())
        #expect(first.deadLetters.map(\.table) == ["shared_hashes"])
        // The whole of it was to be looked at for the letter.
        try driver.read(.missing, after: [])
        let second = try #require(driver.cut())
        #expect(second.tables.map(\.swept.count) == [1])
        driver.send("ZADD y:a 1 m")
        driver.send("PEXPIREAT y:a 3000000000000")
        try driver.read(.wrongType, after: [])
        let batch = try #require(driver.cut())
        let changes = try #require(
            batch.tables.first { Self.shared[$0.table].name == "shared_hashes" })
        // Whether it outlived its key, the database knows.
        #expect(changes.kept.isEmpty && changes.swept.count == 1)
    }

    @Test("a row with a letter goes only if the policy says so", arguments: [true, false])
    func letterOfKept(isKept: Bool) throws {
        let mappings = Self.scores(.always(isKept ? .keep : .mark("gone_at")))
        let driver = MachineDriver(mappings)
        driver.send("ZADD z:a nan m")
        let first = try #require(driver.cut())
        let letters = first.deadLetters
        #expect(letters.map(\.identity.member) == [[0x6d]])
        if isKept {
            driver.send("ZRANGESTORE z:a z:b 0 -1")
            try driver.read(.page([[0x6e], [0x31]], next: Array("0".utf8)), after: [])
        } else {
            driver.send("DEL z:a")
        }
        let batch = try #require(driver.cut())
        let changes = try #require(Self.changes(batch, mappings))
        #expect(changes.removes.count == 0)
        #expect(changes.clearMarks.count == (isKept ? 0 : 1))
    }

    private static func settle(_ driver: MachineDriver, _ database: inout ModelDatabase) throws {
        let batch = try #require(driver.cut())
        database.apply(batch.tables)
    }

    @Test("a score of a key in doubt is replaced, however often the key goes in one batch")
    func goneTwice() throws {
        var database = ModelDatabase(mappings: Self.scores)
        let driver = MachineDriver(Self.scores)
        driver.send("ZADD z:a 2 m")
        try Self.settle(driver, &database)
        driver.send("DEL z:a", nil)
        driver.send("ZINCRBY z:a 6 m")
        driver.send("DEL z:a", nil)
        try Self.settle(driver, &database)
        let row = RowIdentity(key: Self.key, member: [0x6d])
        #expect(database.tables[0][row] == [.real(6)])
    }

    @Test("what outlived a flush that came before its key was read is remembered")
    func flushedBeforeRead() throws {
        var database = ModelDatabase(mappings: Self.scores)
        let driver = MachineDriver(Self.scores)
        driver.send("ZADD z:a 3 m")
        try Self.settle(driver, &database)
        driver.send("ZPOPMIN z:a")
        let stream = ["FLUSHALL", "ZADD z:a 1 n", "FLUSHALL", "ZADD z:a 1 n"]
        let page: [Bytes] = [[0x6e], [0x31]]
        try driver.read(.page(page, next: Array("7".utf8)), after: stream)
        try driver.read(.page([], next: Array("0".utf8)), after: stream)
        for command in stream { driver.send(command) }
        try Self.settle(driver, &database)
        driver.send("ZINCRBY z:a 6 m")
        try Self.settle(driver, &database)
        let row = RowIdentity(key: Self.key, member: [0x6d])
        #expect(database.kept(0, row) == .back)
        #expect(database.tables[0][row] == [.real(9)])
    }
}
