/// The commands that say their effect, and those that have none on rows.
enum CommandName: CaseIterable {
    case set, setnx, mset, msetnx, incr, decr, incrby, decrby
    case hset, hmset, hsetnx, hincrby, hdel
    case zadd, zincrby, zrem, sadd, srem
    case xadd, xdel, xtrim, xsetid, xgroup, xclaim, xack, xdelex, xackdel
    case del, unlink, getdel, delifeq, delex
    case pexpireat, expireat, persist
    case flushall, flushdb, swapdb, copy, move, rename, renamenx, sort
    case select, multi, exec, ping, replconf, publish, spublish, function, script
}

/// Finds command names without a string: up to 16 bytes, packed, whatever their case.
struct CommandTable {
    private var buckets: [[(packed: UInt128, name: CommandName)]]

    init() {
        buckets = Array(repeating: [], count: 256)
        for name in CommandName.allCases {
            let text = Array("\(name)".utf8)
            guard let packed = Self.pack(text.span) else {
                preconditionFailure("names of more than 16 bytes are not in this table")
            }
            buckets[Self.bucket(packed)].append((packed, name))
        }
    }

    @inline(__always)
    func name(_ text: borrowing Span<UInt8>) -> CommandName? {
        guard let packed = Self.pack(text) else { return nil }
        for candidate in buckets[Self.bucket(packed)] where candidate.packed == packed {
            return candidate.name
        }
        return nil
    }

    @inline(__always)
    private static func pack(_ text: borrowing Span<UInt8>) -> UInt128? {
        guard text.count <= 16 else { return nil }
        var low: UInt64 = 0
        var high: UInt64 = 0
        for index in 0..<text.count {
            let byte = UInt64(text[index].lowercasedASCII)
            if index < 8 {
                low |= byte << UInt64(index * 8)
            } else {
                high |= byte << UInt64((index - 8) * 8)
            }
        }
        return UInt128(high) << 64 | UInt128(low)
    }

    @inline(__always)
    private static func bucket(_ packed: UInt128) -> Int {
        let folded = UInt64(truncatingIfNeeded: packed) ^ UInt64(truncatingIfNeeded: packed >> 64)
        return Int((folded &* 0x9E37_79B9_7F4A_7C15) >> 56)
    }
}
