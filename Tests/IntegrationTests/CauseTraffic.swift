import SluiceTesting

/// Writes, removes and lets expire, and knows of each key whether the application removed it last.
struct CauseTraffic {
    let client: RedisClient
    private(set) var isRemoved: [String: Bool] = [:]
    /// How many entries were appended to streams.
    private(set) var entries = 0

    init(client: RedisClient) {
        self.client = client
    }

    mutating func step(_ random: inout SplitMix64) async throws {
        let key = "\(["c", "h", "z", "s"][random.pick(0..<4)]):\(random.pick(0..<60))"
        switch random.pick(0..<12) {
        case 0, 1: try await remove(key, &random)
        case 2, 3:
            // Some live until they are evicted.
            let milliseconds = random.oneIn(3) ? 100_000 : random.pick(5..<30)
            try await client.send("PEXPIRE", key, "\(milliseconds)")
        case 4: try await client.send("TTL", key)
        case 5: try await append("e:\(random.pick(0..<5))", &random)
        default: try await write(key, &random)
        }
    }

    private mutating func remove(_ key: String, _ random: inout SplitMix64) async throws {
        let command = ["DEL", "UNLINK"][random.pick(0..<2)]
        switch key.first {
        case "c" where random.oneIn(2):
            if try await client.send("GETDEL", key) != [nil] { isRemoved[key] = true }
        case "s" where random.oneIn(2):
            if try await client.send("SPOP", key) != [nil] { isRemoved[key] = true }
        default:
            if try await client.send(command, key) == ["1"] { isRemoved[key] = true }
        }
    }

    private mutating func append(_ key: String, _ random: inout SplitMix64) async throws {
        switch random.pick(0..<6) {
        case 0: try await client.send("XTRIM", key, "MAXLEN", "2")
        case 1:
            let last = try await client.send("XREVRANGE", key, "+", "-", "COUNT", "1").first ?? nil
            if let last { try await client.send("XDEL", key, last) }
        case 2: try await client.send("PEXPIRE", key, "\(random.pick(5..<30))")
        default:
            // One of its own: a stream that was evicted, and is there again within the same millisecond,
            // would give the same identifier once more.
            let id = try await client.send("XADD", key, "\(entries + 1)-1", "f", "v").first ?? nil
            if id?.hasPrefix("ERROR") == false { entries += 1 }
        }
    }

    private mutating func write(_ key: String, _ random: inout SplitMix64) async throws {
        let number = "\(random.pick(1..<9))"
        let reply =
            switch key.first {
            case "c": try await client.send("INCRBY", key, number)
            case "h": try await client.send("HSET", key, "user", number)
            case "s": try await client.send("SADD", key, "m")
            default: try await client.send("ZADD", key, number, "m" + number)
            }
        // Where nothing is left to evict, Redis refuses writes.
        if reply.first??.hasPrefix("ERROR") != true { isRemoved[key] = false }
    }
}
