package import NIOCore
internal import RESPWire
package import SluiceCore

/// Reads values together with the offset of the stream at which they hold.
///
/// Each chunk is one `MULTI`, the reads, `INFO replication`, `EXEC`: Redis runs it as one, so the
/// offset belongs to the values. Where there is no stream, only the server's role is asked for, and the
/// place is of no meaning.
package final class KeyReader: Sendable {
    private let connection: RedisConnection
    /// Whether places in the stream are asked for.
    private let isExact: Bool
    /// Whether the server knows PEXPIRETIME, from 7.0 on; else deadlines are worked out from PTTL.
    private let hasExpireTime: Bool
    // The database that is selected wherever nothing else is said.
    private let home: Int

    /// Whether the connection still stands.
    package var isActive: Bool { connection.isActive }

    private init(_ connection: RedisConnection, home: Int, isExact: Bool, hasExpireTime: Bool) {
        self.connection = connection
        self.home = home
        self.isExact = isExact
        self.hasExpireTime = hasExpireTime
    }

    /// Connects.
    ///
    /// - Parameter isExact: Whether values are wanted with their places in the stream.
    package static func connect(
        to endpoint: RedisEndpoint, on loop: any EventLoop, isExact: Bool = true,
    ) async throws(RedisError) -> KeyReader {
        let connection = try await RedisConnection.connect(
            to: endpoint, on: loop, name: "sluice-reader"
        )
        // From 7.2: reading is not using, so it must not change what is evicted.
        _ = try await connection.send(["CLIENT", "NO-TOUCH", "ON"])
        let isOld = isExact ? false : try await version(connection) < 7
        return KeyReader(
            connection, home: endpoint.database, isExact: isExact, hasExpireTime: !isOld)
    }

    private static func version(_ connection: RedisConnection) async throws(RedisError) -> Int {
        let reply = try await connection.send(["INFO", "server"])
        if case .error(let text) = reply { throw RedisConnection.refusal(text, "INFO") }
        return ServerInfo(reply.text ?? "").major
    }

    /// Closes the connection.
    package func close() { connection.close() }

    /// What INFO says.
    package func info() async throws(RedisError) -> ServerInfo {
        let reply = try await connection.send(["INFO"])
        if case .error(let text) = reply { throw RedisConnection.refusal(text, "INFO") }
        return ServerInfo(reply.text ?? "")
    }

    /// What COMMAND says.
    package func commands() async throws(RedisError) -> [CommandDescription] {
        let reply = try await connection.send(["COMMAND"])
        if case .error(let text) = reply { throw RedisConnection.refusal(text, "COMMAND") }
        return CommandDescriptions.parse(reply)
    }

    /// Sees that the server is the master still.
    package func expectMaster() async throws(RedisError) {
        _ = try place(try await connection.send(["INFO", "replication"]))
    }

    /// Sends any command.
    package func send(_ command: [String]) async throws(RedisError) -> [String]? {
        let reply = try await connection.send(command)
        if case .error(let text) = reply { throw RedisConnection.refusal(text, command[0]) }
        return reply.elements.map { $0.map { $0.text ?? "" } } ?? reply.text.map { [$0] }
    }

    /// Reads items, in one transaction where places in the stream are asked for.
    package func read(
        _ items: [ReadItem],
    ) async throws(RedisError) -> ReadAnswer {
        var commands: [[[UInt8]]] = []
        // The places of what SELECT answers.
        var selects: [Int] = []
        var selected = home
        func select(_ database: Int) {
            guard database != selected else { return }
            selects.append(commands.count)
            commands.append(Self.select(database))
            selected = database
        }
        for item in items {
            select(item.database)
            commands += self.commands(for: item)
        }
        if !hasExpireTime { commands.append([Array("TIME".utf8)]) }
        select(home)
        var answer = isExact ? try await readAtOnce(commands) : try await readInTurn(commands)
        for place in selects.reversed() {
            if case .error(let text) = answer.values.remove(at: place) {
                throw RedisConnection.refusal(text, "SELECT")
            }
        }
        let time = hasExpireTime ? nil : Self.milliseconds(answer.values.removeLast())
        return ReadAnswer(
            results: Self.results(for: items, answer.values, time: time),
            offset: answer.place.offset, until: answer.until, history: answer.place.history)
    }

    private typealias Values = (values: [RESPValue], place: StreamPlace, until: Int64)

    private func readAtOnce(_ commands: [[[UInt8]]]) async throws(RedisError) -> Values {
        let whereabouts = RESPEncoder.command("INFO", "replication")
        let bytes =
            RESPEncoder.command("MULTI") + commands.flatMap { RESPEncoder.command($0) }
            + whereabouts + RESPEncoder.command("EXEC") + whereabouts
        let count = commands.count + 4
        var replies = try await connection.send(encoded: bytes, count: count)
        // To look at a key past its deadline removes it, which the stream says after the reads.
        let after = try place(replies.removeLast())
        let names = ["MULTI"] + commands.map { String(decoding: $0[0], as: UTF8.self) } + ["INFO"]
        for (reply, name) in zip(replies.dropLast(), names) {
            if case .error(let text) = reply { throw RedisConnection.refusal(text, name) }
        }
        guard let last = replies.last, var values = last.elements, values.count == count - 3
        else {
            throw RedisError(.retry, "Redis did not run the transaction of a read")
        }
        let before = try place(values.removeLast())
        guard after.history == before.history else {
            throw RedisError(.retry, "another history began during a read")
        }
        return (values, before, after.offset)
    }

    // A Redis without memory queues nothing, and what changes meanwhile is read once more anyway.
    private func readInTurn(_ commands: [[[UInt8]]]) async throws(RedisError) -> Values {
        var replies = try await connection.send(commands + [Self.whereabouts])
        let place = try place(replies.removeLast())
        for (reply, command) in zip(replies, commands) {
            guard case .error(let text) = reply, !Self.isOfValue(text) else { continue }
            throw RedisConnection.refusal(text, String(decoding: command[0], as: UTF8.self))
        }
        return (replies, place, place.offset)
    }

    // What a server says of a key that is of another type, or that it does not have.
    private static func isOfValue(_ text: String) -> Bool {
        text.hasPrefix("WRONGTYPE") || text.hasPrefix("ERR no such key")
    }

    // What TIME says: seconds and microseconds.
    private static func milliseconds(_ reply: RESPValue) -> Int64? {
        let parts = (reply.elements ?? []).compactMap { $0.text.flatMap { Int64($0) } }
        return parts.count == 2 ? parts[0] * 1_000 + parts[1] / 1_000 : nil
    }

    private static func select(_ database: Int) -> [[UInt8]] {
        [Array("SELECT".utf8), Array("\(database)".utf8)]
    }

    // Sends commands in a database, and comes back from there.
    private func send(
        _ commands: [[[UInt8]]], in database: Int,
    ) async throws(RedisError) -> [RESPValue] {
        guard database != home else { return try await connection.send(commands) }
        let all = [Self.select(database)] + commands + [Self.select(home)]
        let replies = try await connection.send(all)
        if case .error(let text) = replies[0] { throw RedisConnection.refusal(text, "SELECT") }
        return Array(replies.dropFirst().dropLast())
    }

    private func commands(for item: ReadItem) -> [[[UInt8]]] {
        let deadline = hasExpireTime ? "PEXPIRETIME" : "PTTL"
        func command(_ name: String, _ rest: [UInt8]...) -> [[UInt8]] {
            [Array(name.utf8), item.key] + rest
        }
        let (zero, end) = (Array("0".utf8), Array("-1".utf8))
        var more: [[[UInt8]]] = []
        if item.wantsDeadline { more.append(command(deadline)) }
        if item.wantsLastEntry {
            more.append([Array("XINFO".utf8), Array("STREAM".utf8), item.key])
        }
        if item.wantsType { more.append(command("TYPE")) }
        let value: [[UInt8]]
        switch (item.type, item.target) {
        case (.sortedSet, .member(let member)): value = command("ZSCORE", member)
        case (_, .member(let member)): value = command("SISMEMBER", member)
        case (_, .entries(let after)):
            let start = after.isEmpty ? Array("-".utf8) : Array("(".utf8) + after
            value = command(
                "XRANGE", start, Array("+".utf8), Array("COUNT".utf8),
                Array("\(ReadItem.streamPageMax)".utf8),
            )
        case (_, .members(let cursor, let count)):
            let scan = item.type == .sortedSet ? "ZSCAN" : "SSCAN"
            value = command(scan, cursor, Array("COUNT".utf8), Array("\(count)".utf8))
        case (_, .fieldPage(let cursor, let count)):
            value = command("HSCAN", cursor, Array("COUNT".utf8), Array("\(count)".utf8))
        case (_, .fields(let fields)):
            // No field may be there in a hash of others; and without columns only that it is there.
            let size = command("HLEN")
            let read = fields.isEmpty ? [size] : [[Array("HMGET".utf8), item.key] + fields, size]
            return read + more
        case (.string, .key): value = command("GET")
        case (.hash, .key): value = command("HGETALL")
        case (.list, .key): value = command("LRANGE", zero, end)
        case (.set, .key): value = command("SMEMBERS")
        case (.sortedSet, .key): value = command("ZRANGE", zero, end, Array("WITHSCORES".utf8))
        case (.stream, .key): value = command("XRANGE", Array("-".utf8), Array("+".utf8))
        }
        return [value] + more
    }

    // The time is that at which PTTL was asked, or nil when deadlines are absolute.
    private static func results(
        for items: [ReadItem], _ values: [RESPValue], time: Int64?,
    ) -> [ReadResult] {
        var index = 0
        return items.map { item in
            var value = values[index]
            var deadline: Int64?
            var last: Bytes?
            var type: Bytes?
            index += 1
            if case .fields(let fields) = item.target {
                if !fields.isEmpty { index += 1 }
                value = pairs(fields, value, size: values[index - 1])
            }
            if item.wantsDeadline {
                deadline = values[index].integer.flatMap { $0 >= 0 ? $0 + (time ?? 0) : nil }
                index += 1
            }
            if item.wantsLastEntry {
                last = lastEntry(values[index])
                index += 1
            }
            if item.wantsType {
                type = values[index].bytes
                index += 1
            }
            return ReadResult(
                value: read(value, item), deadline: deadline, lastEntry: last, typeName: type)
        }
    }

    // Fields with their values, as HGETALL says them.
    private static func pairs(
        _ fields: [Bytes], _ values: RESPValue, size: RESPValue,
    ) -> RESPValue {
        guard case .integer(let size) = size else { return size }
        guard size > 0 else { return .null }
        let found = zip(fields, fields.isEmpty ? [] : values.elements ?? []).filter { pair in
            if case .null = pair.1 { false } else { true }
        }
        return .array(found.flatMap { [.bulk($0.0), $0.1] })
    }

    private static func read(_ value: RESPValue, _ item: ReadItem) -> ReadValue {
        if case .error = value { return .wrongType }
        if item.isPageOfElements {
            guard let parts = value.elements, parts.count == 2, let next = parts[0].bytes,
                let elements = parts[1].elements
            else { return .missing }
            return .page(elements.map { $0.bytes ?? [] }, next: next)
        }
        if case .fields = item.target, let elements = value.elements {
            return .elements(elements.map { $0.bytes ?? [] })
        }
        switch value {
        case .error: return .wrongType
        case .null: return .missing
        case .integer(let number): return number == 1 ? .single([]) : .missing
        case .bulk, .simple: return .single(value.bytes ?? [])
        case .push: return .missing
        case .array(let elements):
            if item.type == .stream { return .entries(elements.compactMap(entry)) }
            if elements.isEmpty { return .missing }
            return .elements(elements.map { $0.bytes ?? [] })
        }
    }

    // Source: XINFO STREAM, of which the reply is names and values in turn.
    private static func lastEntry(_ value: RESPValue) -> Bytes? {
        let parts = value.elements ?? []
        guard let name = parts.firstIndex(where: { $0.text == "last-generated-id" }),
            name + 1 < parts.count
        else { return nil }
        return parts[name + 1].bytes
    }

    private static func entry(_ value: RESPValue) -> StreamEntry? {
        guard let parts = value.elements, parts.count == 2, let id = parts[0].bytes else {
            return nil
        }
        return StreamEntry(id: id, fields: (parts[1].elements ?? []).map { $0.bytes ?? [] })
    }

    /// Looks for keys, and says at which offset, or at a later one, they were looked for.
    package func scan(
        cursor: Bytes, match: Bytes, count: Int, in database: Int? = nil,
    ) async throws(RedisError) -> (keys: [Bytes], cursor: Bytes, place: StreamPlace) {
        let command = [
            Array("SCAN".utf8), cursor, Array("MATCH".utf8), match, Array("COUNT".utf8),
            Array("\(count)".utf8),
        ]
        let replies = try await send([command, Self.whereabouts], in: database ?? home)
        if case .error(let text) = replies[0] { throw RedisConnection.refusal(text, "SCAN") }
        guard let parts = replies[0].elements, parts.count == 2, let next = parts[0].bytes else {
            throw RedisError(.retry, "Redis answered SCAN with something else")
        }
        let keys = (parts[1].elements ?? []).compactMap(\.bytes)
        return (keys, next, try place(replies[1]))
    }

    /// How many milliseconds keys have left, of those that have a deadline.
    package func timesToLive(
        of keys: [Bytes], in database: Int,
    ) async throws(RedisError) -> [Int64] {
        let replies = try await send(keys.map { [Array("PTTL".utf8), $0] }, in: database)
        return replies.compactMap(\.integer).filter { $0 >= 0 }
    }

    /// Those of a table's rows that have no key or member, and at which offset or a later one.
    ///
    /// - Parameter isShared: Whether a key of another type may have the name, and be another table's.
    package func missing(
        _ rows: [RowIdentity], of mapping: TableMapping, isShared: Bool,
    ) async throws(RedisError) -> (rows: [RowIdentity], place: StreamPlace) {
        let commands = rows.map { row -> [[UInt8]] in
            switch mapping.type {
            case .sortedSet: [Array("ZSCORE".utf8), row.key, row.member]
            case .set: [Array("SISMEMBER".utf8), row.key, row.member]
            default: [Array((isShared ? "TYPE" : "EXISTS").utf8), row.key]
            }
        }
        let replies = try await send(commands + [Self.whereabouts], in: mapping.database)
        let missing = zip(rows, replies).filter { _, reply in
            switch reply {
            case .null, .error, .integer(0): true
            case .integer, .bulk: false
            // What TYPE says.
            default: isShared && reply.text != mapping.type.name
            }
        }
        return (missing.map(\.0), try place(replies[replies.count - 1]))
    }

    private static let whereabouts = [Array("INFO".utf8), Array("replication".utf8)]

    private func place(_ reply: RESPValue) throws(RedisError) -> StreamPlace {
        let info = ServerInfo(reply.text ?? "")
        if !isExact {
            guard !info.isReplica else {
                throw RedisError.noMaster
            }
            return StreamPlace(offset: 0, history: ReplicationID(""))
        }
        guard info.isMaster, let offset = info.offset, let history = info.history else {
            throw RedisError.noMaster
        }
        return StreamPlace(offset: offset, history: history)
    }
}

/// The answers to a read.
package struct ReadAnswer: Sendable {
    /// One for each item.
    package let results: [ReadResult]
    /// The offset at which they hold.
    package let offset: Int64
    /// Where the stream was a little later, beyond what the read itself brought about.
    package let until: Int64
    package let history: ReplicationID
}

/// Where the stream was when a question was asked, or a little later.
package struct StreamPlace: Hashable, Sendable {
    package let offset: Int64
    package let history: ReplicationID
}

extension ReadItem {
    /// Whether the answer is a cursor with elements.
    fileprivate var isPageOfElements: Bool {
        switch target {
        case .members, .fieldPage: true
        default: false
        }
    }
}
