internal import NIOCore
internal import NIOPosix
internal import RESPWire
internal import SluiceCore
internal import SluiceRedis

/// Reads what Redis has of rows, with plain commands and in small parts.
final class RedisRows {
    /// The most elements that one command or transaction reads: Redis answers nobody else meanwhile.
    static let elementsMax = 2_000
    /// The elements that one page holds, about.
    static let pageElements = 500
    /// How often rows are read that change while they are read.
    private static let triesMax = 5

    /// Values of rows, in the order in which they were asked for; nil where Redis has no such row.
    typealias Values = [[String?]?]

    private let connection: RedisConnection
    /// Whether the server says deadlines as times; one before 7.0 does not, and they are not compared.
    let hasExpireTime: Bool
    private var database: Int

    private init(_ connection: RedisConnection, database: Int, hasExpireTime: Bool) {
        self.connection = connection
        self.database = database
        self.hasExpireTime = hasExpireTime
    }

    deinit { connection.close() }

    static func connect(to endpoint: RedisEndpoint) async throws(RedisError) -> RedisRows {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let server = try await endpoint.resolved(on: loop)
        let connection = try await RedisConnection.connect(
            to: server, on: loop, name: "sluice-verify")
        // From 7.2: to compare is not to use, so it must not change what is evicted.
        _ = try await connection.send(["CLIENT", "NO-TOUCH", "ON"])
        let reply = try await connection.send(["INFO", "server"])
        if case .error(let text) = reply { throw RedisConnection.refusal(text, "INFO") }
        return RedisRows(
            connection, database: server.database,
            hasExpireTime: ServerInfo(reply.text ?? "").major >= 7)
    }

    /// Reads from another database from now on.
    func select(_ number: Int) async throws(RedisError) {
        guard number != database else { return }
        let reply = try await connection.send(["SELECT", "\(number)"])
        if case .error(let text) = reply { throw RedisConnection.refusal(text, "SELECT") }
        database = number
    }

    // MARK: Finding rows

    /// Some keys of a pattern, and where to go on.
    func keys(
        from cursor: Bytes, matching glob: Bytes,
    ) async throws(RedisError) -> (keys: [Bytes], next: Bytes) {
        let count = Array("\(Self.pageElements)".utf8)
        let reply = try await run([
            [Array("SCAN".utf8), cursor, Array("MATCH".utf8), glob, Array("COUNT".utf8), count]
        ])[0]
        let (elements, next) = try Self.page(reply)
        return (elements.compactMap(\.bytes), next)
    }

    /// Rows of a key, and where to go on; nil after the last.
    typealias Page = (rows: [RowIdentity], next: Bytes?)

    /// The first page of the rows that each key has.
    func firstRows(
        of keys: [Bytes], _ mapping: TableMapping,
    ) async throws(RedisError) -> [Page] {
        guard !mapping.isOneRowPerKey else { return [(keys.map { RowIdentity(key: $0) }, nil)] }
        let replies = try await run(keys.map { Self.pageCommand($0, mapping, from: nil) })
        var pages: [Page] = []
        for (key, reply) in zip(keys, replies) {
            pages.append(try Self.page(of: key, mapping, reply))
        }
        return pages
    }

    /// A further page of the rows that a key has.
    func rows(
        of key: Bytes, _ mapping: TableMapping, from cursor: Bytes,
    ) async throws(RedisError) -> Page {
        let reply = try await run([Self.pageCommand(key, mapping, from: cursor)])[0]
        return try Self.page(of: key, mapping, reply)
    }

    private static func pageCommand(
        _ key: Bytes, _ mapping: TableMapping, from cursor: Bytes?,
    ) -> [Bytes] {
        let count = "\(pageElements)"
        guard mapping.type != .stream else {
            let start = cursor.map { Array("(".utf8) + $0 } ?? Array("-".utf8)
            return command("XRANGE", key, start, "+", "COUNT", count)
        }
        let name = mapping.type == .set ? "SSCAN" : "ZSCAN"
        return command(name, key, cursor ?? Array("0".utf8), "COUNT", count)
    }

    private static func page(
        of key: Bytes, _ mapping: TableMapping, _ reply: RESPValue,
    ) throws(RedisError) -> Page {
        // A key of another type is another table's, or set aside.
        guard let parts = reply.elements else { return ([], nil) }
        guard mapping.type != .stream else {
            let ids = parts.compactMap { $0.elements?.first?.bytes }
            let rows = ids.map { RowIdentity(key: key, member: $0) }
            return (rows, ids.count < pageElements ? nil : ids.last)
        }
        let (elements, next) = try page(reply)
        let step = mapping.type == .set ? 1 : 2
        let rows = stride(from: 0, to: elements.count, by: step).map {
            RowIdentity(key: key, member: elements[$0].bytes ?? [])
        }
        return (rows, next == Array("0".utf8) ? nil : next)
    }

    /// Whether Redis has rows.
    func has(_ rows: [RowIdentity], _ mapping: TableMapping) async throws(RedisError) -> [Bool] {
        if mapping.isOneRowPerKey { return try await haveKeys(rows.map(\.key), mapping) }
        let name = mapping.type == .set ? "SISMEMBER" : "ZSCORE"
        let replies = try await run(rows.map { Self.command(name, $0.key, $0.member) })
        return replies.map { reply in
            switch reply {
            case .null, .error, .integer(0): false
            default: true
            }
        }
    }

    /// Whether there are keys, of a mapping's type.
    func haveKeys(_ keys: [Bytes], _ mapping: TableMapping) async throws(RedisError) -> [Bool] {
        return try await run(keys.map { Self.command("TYPE", $0) }).map {
            $0.text == mapping.type.name
        }
    }

    // MARK: Values

    /// What Redis has of rows, each at its own time.
    func values(
        of rows: [RowIdentity], _ mapping: TableMapping,
    ) async throws(RedisError) -> Values {
        var values: Values = []
        for part in try await parts(of: rows, mapping) {
            if part.count == 1, part[0].isLarge {
                values += try await large(part[0].row, mapping)?.values ?? [nil]
                continue
            }
            let readings = part.map { RowReading($0.row, mapping, hasExpireTime: hasExpireTime) }
            let replies = try await run(readings.flatMap(\.commands))
            values += Self.values(readings, replies[...])
        }
        return values
    }

    /// A row, and whether it has so many elements that it is read in pages.
    typealias Part = (row: RowIdentity, isLarge: Bool)

    /// Rows, put together so that none takes long to read.
    func parts(
        of rows: [RowIdentity], _ mapping: TableMapping,
    ) async throws(RedisError) -> [[Part]] {
        var sizes = [Int](repeating: 1, count: rows.count)
        let isWhole = mapping.type == .list || mapping.type == .hash && mapping.rest != nil
        if isWhole {
            let name = mapping.type == .list ? "LLEN" : "HLEN"
            let replies = try await run(rows.map { Self.command(name, $0.key) })
            sizes = replies.map { max(1, Int($0.integer ?? 1)) }
        }
        var parts: [[Part]] = []
        var weight = Self.elementsMax
        for (row, size) in zip(rows, sizes) {
            if weight + size > Self.elementsMax {
                parts.append([])
                weight = 0
            }
            weight += size
            parts[parts.count - 1].append((row, size > Self.elementsMax))
        }
        return parts
    }

    /// What Redis has of rows at one place of its stream.
    struct Sight {
        let values: Values
        let place: Whereabouts
        /// Rows with fields that read as gone before the stream says so.
        var expiring: Set<RowIdentity> = []
    }

    /// What Redis has of rows, all at one place of its stream; nil when they changed while they were
    /// read.
    func valuesAtOnce(
        of part: [Part], _ mapping: TableMapping,
    ) async throws(RedisError) -> Sight? {
        for _ in 0..<Self.triesMax {
            let sight =
                part.count == 1 && part[0].isLarge
                ? try await large(part[0].row, mapping) : try await small(part.map(\.row), mapping)
            if let sight { return sight }
        }
        return nil
    }

    private func small(
        _ rows: [RowIdentity], _ mapping: TableMapping,
    ) async throws(RedisError) -> Sight? {
        let readings = rows.map { RowReading($0, mapping, hasExpireTime: hasExpireTime) }
        // A key past its deadline reads as gone before the stream says so: to look at it removes it,
        // and one whose deadline ends after that is noticed.
        let keys = Set(rows.map(\.key))
        let touch = keys.map { Self.command("TYPE", $0) } + [[Array("WATCH".utf8)] + keys]
        let commands = readings.flatMap(\.commands)
        guard let answer = try await transaction(commands, after: touch) else { return nil }
        var sight = Sight(
            values: Self.values(readings, answer.values[...]), place: answer.place)
        var rest = answer.values[...]
        for (row, reading) in zip(rows, readings) {
            if reading.hasExpiredFields(Array(rest.prefix(reading.commands.count))) {
                sight.expiring.insert(row)
            }
            rest = rest.dropFirst(reading.commands.count)
        }
        return sight
    }

    private static func values(
        _ readings: [RowReading], _ replies: ArraySlice<RESPValue>,
    ) -> Values {
        var rest = replies
        return readings.map { reading in
            defer { rest = rest.dropFirst(reading.commands.count) }
            return reading.values(Array(rest.prefix(reading.commands.count)))
        }
    }

    // Page by page, watched: Redis says at the end whether it has changed since the beginning.
    private func large(
        _ row: RowIdentity, _ mapping: TableMapping,
    ) async throws(RedisError) -> Sight? {
        _ = try await run([Self.command("TYPE", row.key), Self.command("WATCH", row.key)])
        var elements: [RESPValue] = []
        if mapping.type == .list {
            while true {
                let end = elements.count + Self.pageElements - 1
                let reply = try await run([
                    Self.command("LRANGE", row.key, "\(elements.count)", "\(end)")
                ])[0]
                guard let page = reply.elements, !page.isEmpty else { break }
                elements += page
            }
        } else {
            var cursor = Array("0".utf8)
            repeat {
                let reply = try await run([
                    Self.command("HSCAN", row.key, cursor, "COUNT", "\(Self.pageElements)")
                ])[0]
                guard reply.elements != nil else { break }
                let page = try Self.page(reply)
                elements += page.elements
                cursor = page.next
            } while cursor != Array("0".utf8)
        }
        let reading = RowReading(row, mapping, hasExpireTime: hasExpireTime)
        guard let answer = try await transaction(Array(reading.commands.dropFirst())) else {
            return nil
        }
        let replies = [.array(elements)] + answer.values
        return Sight(
            values: [reading.values(replies)], place: answer.place,
            expiring: reading.hasExpiredFields(replies) ? [row] : [])
    }

    // MARK: Commands

    /// Where the stream was.
    struct Whereabouts: Hashable {
        let offset: Int64
        let history: String
    }

    private func transaction(
        _ commands: [[Bytes]], after first: [[Bytes]] = [],
    ) async throws(RedisError) -> (values: [RESPValue], place: Whereabouts)? {
        let all =
            first + [Self.command("MULTI")] + commands + [Self.command("INFO", "replication")]
            + [Self.command("EXEC")]
        let replies = try await run(all)
        guard let result = replies.last, var values = result.elements else { return nil }
        let info = ServerInfo(values.removeLast().text ?? "")
        guard !info.isReplica else { throw RedisError.noMaster }
        for (value, command) in zip(values, commands) { try Self.check(value, command) }
        return (
            values, Whereabouts(offset: info.offset ?? 0, history: info.history?.digits ?? "")
        )
    }

    private func run(_ commands: [[Bytes]]) async throws(RedisError) -> [RESPValue] {
        guard !commands.isEmpty else { return [] }
        let replies = try await connection.send(commands)
        for (reply, command) in zip(replies, commands) { try Self.check(reply, command) }
        return replies
    }

    // A key of another type is no row.
    private static func check(_ reply: RESPValue, _ command: [Bytes]) throws(RedisError) {
        guard case .error(let text) = reply, !text.hasPrefix("WRONGTYPE") else { return }
        throw RedisConnection.refusal(text, String(decoding: command[0], as: UTF8.self))
    }

    private static func page(
        _ reply: RESPValue,
    ) throws(RedisError) -> (elements: [RESPValue], next: Bytes) {
        guard let parts = reply.elements, parts.count == 2, let next = parts[0].bytes else {
            throw RedisError(.retry, "Redis answered a scan with something else")
        }
        return (parts[1].elements ?? [], next)
    }

    static func command(_ arguments: any Argument...) -> [Bytes] { arguments.map(\.bytes) }
}

/// What stands in a command.
protocol Argument {
    var bytes: Bytes { get }
}

extension String: Argument {
    var bytes: Bytes { Array(utf8) }
}

extension [UInt8]: Argument {
    var bytes: Bytes { self }
}
