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
        /// How many marks wait still.
        package let waiting: Int
    }

    /// Who took marks before.
    package struct Claim: Sendable {
        /// The name of the database that they went to, or nil when there was none.
        package let target: String?
        /// The number of the commit that had all of which a mark was cleared.
        package let sequence: Int64
    }

    private let connection: RedisConnection
    private let home: Int
    /// What only this connection knows: a step of an older one that arrives late does nothing.
    private let token: String

    /// Whether the connection still stands.
    package var isActive: Bool { connection.isActive }

    private init(connection: RedisConnection, home: Int) {
        self.connection = connection
        self.home = home
        token = String(UInt64.random(in: .min ... .max), radix: 16)
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
    ) async throws(RedisError) -> Claim {
        let arguments = ["\(epoch)", target, "\(Self.silenceSeconds)", token]
        var first: Claim?
        while true {
            let reply = try await run(Self.claimScript, arguments, in: database)
            let parts = reply.elements ?? [reply]
            let claim =
                first
                ?? Claim(
                    target: parts.count > 1 ? parts[1].text.flatMap { $0.isEmpty ? nil : $0 } : nil,
                    sequence: parts.count > 2 ? parts[2].integer ?? .max : .max)
            first = claim
            switch parts[0].text {
            case "OK": return claim
            // A part of the marks in flight was moved back.
            case "MORE": continue
            case "TARGET":
                throw RedisError(
                    .halt, "the marks of this Redis are taken by a Sluice with another database",
                    hint: "each of the two would see only some writes; if that one is gone for "
                        + "good, wait a minute: then every key is read once")
            default:
                throw RedisError(.retry, "a later instance takes the marks of this Redis")
            }
        }
    }

    /// Clears marks that were settled, and takes the oldest ones.
    ///
    /// - Parameters:
    ///   - settled: Keys whose marks in flight go.
    ///   - sequence: The number of the commit that has what they stand for.
    ///   - count: The most that are taken, 0 to only clear.
    package func take(
        settled: [Bytes], sequence: Int64, count: Int, in database: Int,
    ) async throws(RedisError) -> Answer {
        let texts = [token, "\(sequence)", "\(count)"].map { Array($0.utf8) }
        let reply = try await run(Self.takeScript, texts + settled, in: database)
        guard let parts = reply.elements, parts.count >= 2, let time = parts[0].integer,
            let waiting = parts[1].integer
        else { throw RedisError(.retry, "another instance takes the marks of this Redis now") }
        var marks: [Mark] = []
        for index in stride(from: 2, to: parts.count - 1, by: 2) {
            guard let key = parts[index].bytes else { continue }
            // An application's clock may be anything.
            let score = parts[index + 1].text.flatMap { Double($0) } ?? 0
            let since = score.isNaN ? 0 : Int64(min(max(0, score), Double(time)))
            marks.append(Mark(key: key, database: database, since: min(since, time)))
        }
        return Answer(marks: marks, time: time, waiting: Int(waiting))
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

    // KEYS: marks, the stem of the sets in flight, the writer. All share what a cluster would need. Each
    // begins to write with a command that needs no memory, because then a full Redis lets it end.
    private static let claimScript = """
        local epoch, target, silence, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
        local time = redis.call('TIME')
        local other = redis.call('HMGET', KEYS[3], 'epoch', 'target', 'seen', 'sequence')
        local heard = other[3] and time[1] - other[3] < tonumber(silence)
        if other[2] and other[2] ~= target and heard then return {'TARGET'} end
        if other[1] and other[2] == target and tonumber(other[1]) > tonumber(epoch) and heard then
          return {'EPOCH'}
        end
        redis.call('HDEL', KEYS[3], 'none')
        redis.call('HSET', KEYS[3], 'epoch', epoch, 'target', target, 'seen', time[1],
          'token', token)
        local answer = {'OK', other[2] or '', other[4] or '0'}
        for _, field in ipairs(redis.call('HKEYS', KEYS[3])) do
          local old = string.match(field, '^set:(%d+)$')
          if old then
            local set = KEYS[2] .. ':' .. old
            local marks = redis.call('ZRANGE', set, 0, 999, 'WITHSCORES')
            for i = 1, #marks, 2 do
              redis.call('ZADD', KEYS[1], 'LT', marks[i + 1], marks[i])
              redis.call('ZREM', set, marks[i])
            end
            if redis.call('EXISTS', set) == 1 then
              answer[1] = 'MORE'
              return answer
            end
            if old ~= epoch then redis.call('HDEL', KEYS[3], field) end
          end
        end
        redis.call('HSET', KEYS[3], 'set:' .. epoch, '1')
        return answer
        """

    private static let takeScript = """
        local token, sequence, count = ARGV[1], ARGV[2], tonumber(ARGV[3])
        local writer = redis.call('HMGET', KEYS[3], 'token', 'epoch', 'seen')
        if writer[1] ~= token then return 'FENCED' end
        local set = KEYS[2] .. ':' .. writer[2]
        redis.call('HDEL', KEYS[3], 'none')
        for first = 4, #ARGV, 1000 do
          redis.call('ZREM', set, unpack(ARGV, first, math.min(first + 999, #ARGV)))
        end
        local time = redis.call('TIME')
        if #ARGV > 3 then redis.call('HSET', KEYS[3], 'sequence', sequence) end
        if writer[3] ~= time[1] then redis.call('HSET', KEYS[3], 'seen', time[1]) end
        local answer = {time[1] .. string.format('%03d', math.floor(time[2] / 1000)), 0}
        if count < 1 then return answer end
        local marks = redis.call('ZRANGE', KEYS[1], 0, count - 1, 'WITHSCORES')
        if #marks == 0 then return answer end
        local added, gone = {}, {}
        for i = 1, #marks, 2 do
          answer[i + 2], answer[i + 3] = marks[i], marks[i + 1]
          added[#added + 1], added[#added + 2] = marks[i + 1], marks[i]
          gone[#gone + 1] = marks[i]
        end
        redis.call('ZADD', set, 'LT', unpack(added))
        redis.call('ZREM', KEYS[1], unpack(gone))
        answer[2] = redis.call('ZCARD', KEYS[1])
        return answer
        """
}
