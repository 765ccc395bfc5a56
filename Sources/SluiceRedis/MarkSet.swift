package import NIOCore
internal import RESPWire
package import SluiceCore

/// The marks of keys that changed, which the application sets with each write.
///
/// Three keys in each Redis database: the sorted set of marks (member: key, score: when it was first
/// marked), the set of marks in flight of each writer, and a hash that says who takes them. Each step is
/// one script, so that a mark is always in one of the sets.
///
/// ```
/// sluice:dirty ──take──▶ sluice:inflight:EPOCH ──commit, clear──▶
///       ▲───────────────────────┘ claim: after a crash
/// ```
package final class MarkSet: Sendable {
    /// The sorted set that applications add to.
    package static let dirty = "sluice:dirty"
    private static let inFlight = "sluice:inflight"
    private static let writer = "sluice:writer"
    /// The most marks that are taken at once: Redis answers nobody else meanwhile.
    package static let takeMax = 1_000
    /// How long a writer of another database must not have been heard of before its marks are taken.
    private static let silenceSeconds = 60

    /// What a step found.
    package struct Answer: Sendable {
        /// The marks that were taken, the oldest first.
        package let marks: [Mark]
        /// The server's time, in milliseconds since 1970.
        package let time: Int64
    }

    private let connection: RedisConnection
    private let home: Int

    /// Whether the connection still stands.
    package var isActive: Bool { connection.isActive }

    private init(connection: RedisConnection, home: Int) {
        self.connection = connection
        self.home = home
    }

    /// Connects.
    package static func connect(
        to endpoint: RedisEndpoint, on loop: any EventLoop,
    ) async throws(RedisError) -> MarkSet {
        let connection = try await RedisConnection.connect(
            to: endpoint, on: loop, name: "sluice-marks")
        return MarkSet(connection: connection, home: endpoint.database)
    }

    /// Closes the connection.
    package func close() { connection.close() }

    /// Becomes the one that takes the marks of a database; marks in flight of whoever did before are to
    /// be taken again.
    ///
    /// - Parameters:
    ///   - epoch: The writer's number; a later one is not displaced while it is heard of.
    ///   - target: A name of the database that the marks' rows go to.
    package func claim(
        epoch: Int64, target: String, in database: Int,
    ) async throws(RedisError) {
        let reply = try await run(
            Self.claimScript, ["\(epoch)", target, "\(Self.silenceSeconds)"], in: database)
        switch reply.text {
        case "OK": return
        case "TARGET":
            throw RedisError(
                .halt, "the marks of this Redis are taken by a Sluice with another database",
                hint: "each of the two would see only some writes; if that one is gone for good, "
                    + "wait a minute, or DEL \(Self.writer)")
        default:
            throw RedisError(.retry, "a later instance takes the marks of this Redis")
        }
    }

    /// Clears marks that were settled, and takes the oldest ones.
    ///
    /// - Parameters:
    ///   - settled: Keys whose marks in flight go.
    ///   - count: The most that are taken, 0 to only clear.
    package func take(
        epoch: Int64, settled: [Bytes], count: Int, in database: Int,
    ) async throws(RedisError) -> Answer {
        let texts = ["\(epoch)", "\(count)"].map { Array($0.utf8) }
        let reply = try await run(Self.takeScript, texts + settled, in: database)
        guard let parts = reply.elements, let time = parts.first?.integer, parts.count % 2 == 1
        else { throw RedisError(.retry, "another instance takes the marks of this Redis now") }
        var marks: [Mark] = []
        for index in stride(from: 1, to: parts.count, by: 2) {
            guard let key = parts[index].bytes else { continue }
            let score = parts[index + 1].text.flatMap { Double($0) }
            marks.append(
                Mark(key: key, database: database, since: score.map { Int64(exactly: $0) ?? 0 }))
        }
        return Answer(marks: marks, time: time)
    }

    /// How many marks wait, and when the oldest of them was made.
    package func waiting(
        in database: Int,
    ) async throws(RedisError) -> (count: Int, oldest: Int64?) {
        let dirty = Array(Self.dirty.utf8)
        let replies = try await send(
            [
                [Array("ZCARD".utf8), dirty],
                [
                    Array("ZRANGE".utf8), dirty, Array("0".utf8), Array("0".utf8),
                    Array("WITHSCORES".utf8),
                ],
            ], in: database)
        let oldest = replies[1].elements?.last?.text.flatMap { Double($0) }
        return (Int(replies[0].integer ?? 0), oldest.flatMap { Int64(exactly: $0) })
    }

    private func run(
        _ script: String, _ arguments: [String], in database: Int,
    ) async throws(RedisError) -> RESPValue {
        try await run(script, arguments.map { Array($0.utf8) }, in: database)
    }

    private func run(
        _ script: String, _ arguments: [Bytes], in database: Int,
    ) async throws(RedisError) -> RESPValue {
        let start = ["EVAL", script, "3", Self.dirty, Self.inFlight, Self.writer]
        let reply = try await send([start.map { Array($0.utf8) } + arguments], in: database)[0]
        if case .error(let text) = reply { throw Self.refusal(text) }
        return reply
    }

    private func send(
        _ commands: [[[UInt8]]], in database: Int,
    ) async throws(RedisError) -> [RESPValue] {
        guard database != home else { return try await connection.send(commands) }
        func select(_ number: Int) -> [[UInt8]] { ["SELECT", "\(number)"].map { Array($0.utf8) } }
        let replies = try await connection.send([select(database)] + commands + [select(home)])
        if case .error(let text) = replies[0] { throw RedisConnection.refusal(text, "SELECT") }
        return Array(replies.dropFirst().dropLast())
    }

    private static func refusal(_ text: String) -> RedisError {
        if text.hasPrefix("READONLY") {
            return RedisError(.retry, "the server is no master any more")
        }
        if text.contains("WRONGTYPE") {
            return RedisError(
                .halt,
                "a key of Sluice's own is of another type: \(dirty), \(writer) or \(inFlight):*",
                hint: "\(dirty) is a sorted set: ZADD \(dirty) LT <milliseconds> <key>")
        }
        if text.contains("permission") || text.hasPrefix("NOPERM") {
            return RedisError(
                .halt, "Redis forbids this user to take marks: \(text)",
                hint: "docs/permissions.md has the ACL of capture: dirty-set")
        }
        return RedisConnection.refusal(text, "EVAL")
    }

    // MARK: Scripts

    // KEYS: marks, the stem of the sets in flight, the writer. All share what a cluster would need.
    private static let claimScript = """
        local epoch, target = ARGV[1], ARGV[2]
        local time = redis.call('TIME')
        local now = tonumber(time[1])
        local other = redis.call('HMGET', KEYS[3], 'epoch', 'target', 'seen')
        local heard = other[3] and now - tonumber(other[3]) < tonumber(ARGV[3])
        if other[2] and other[2] ~= target and heard then return 'TARGET' end
        if other[1] and other[2] == target and tonumber(other[1]) > tonumber(epoch) and heard then
          return 'EPOCH'
        end
        local fields = redis.call('HKEYS', KEYS[3])
        for _, field in ipairs(fields) do
          local old = string.match(field, '^set:(%d+)$')
          if old then
            local set = KEYS[2] .. ':' .. old
            redis.call('ZUNIONSTORE', KEYS[1], 2, KEYS[1], set, 'AGGREGATE', 'MIN')
            redis.call('DEL', set)
            redis.call('HDEL', KEYS[3], field)
          end
        end
        redis.call('HSET', KEYS[3], 'epoch', epoch, 'target', target, 'seen', time[1],
          'set:' .. epoch, '1')
        return 'OK'
        """

    private static let takeScript = """
        local epoch, count = ARGV[1], tonumber(ARGV[2])
        if redis.call('HGET', KEYS[3], 'epoch') ~= epoch then return 'FENCED' end
        local set = KEYS[2] .. ':' .. epoch
        for first = 3, #ARGV, 1000 do
          redis.call('ZREM', set, unpack(ARGV, first, math.min(first + 999, #ARGV)))
        end
        local time = redis.call('TIME')
        local answer = {time[1] .. string.format('%03d', math.floor(tonumber(time[2]) / 1000))}
        if redis.call('HGET', KEYS[3], 'seen') ~= time[1] then
          redis.call('HSET', KEYS[3], 'seen', time[1])
        end
        if count < 1 then return answer end
        local marks = redis.call('ZRANGE', KEYS[1], 0, count - 1, 'WITHSCORES')
        if #marks == 0 then return answer end
        local added, gone = {}, {}
        for i = 1, #marks, 2 do
          answer[i + 1], answer[i + 2] = marks[i], marks[i + 1]
          added[#added + 1], added[#added + 2] = marks[i + 1], marks[i]
          gone[#gone + 1] = marks[i]
        end
        redis.call('ZADD', set, 'LT', unpack(added))
        redis.call('ZREM', KEYS[1], unpack(gone))
        return answer
        """
}
