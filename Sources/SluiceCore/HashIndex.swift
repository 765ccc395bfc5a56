/// A seeded hash of bytes, so that nobody who chooses keys can choose collisions.
struct ByteHasher {
    private let seed: UInt64

    init(seed: UInt64) {
        self.seed = seed ^ 0xA076_1D64_78BD_642F
    }

    /// Hashes bytes; `salt` tells apart equal bytes in different places.
    @inline(__always)
    func hash(_ bytes: borrowing Span<UInt8>, salt: UInt64 = 0) -> UInt64 {
        unsafe bytes.withUnsafeBytes { raw in
            var state = seed ^ Self.mix(salt ^ 0xE703_7ED1_A0B4_28DB, UInt64(raw.count))
            var offset = 0
            while offset + 8 <= raw.count {
                let word = unsafe raw.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
                state = Self.mix(state ^ word, 0x8EBC_6AF0_9C88_C6E3)
                offset += 8
            }
            var tail: UInt64 = 0
            while offset < raw.count {
                tail = unsafe tail << 8 | UInt64(raw[offset])
                offset += 1
            }
            return Self.mix(state ^ tail, 0x5899_65CC_7537_4CC3 ^ seed)
        }
    }

    @inline(__always)
    private static func mix(_ left: UInt64, _ right: UInt64) -> UInt64 {
        let product = left.multipliedFullWidth(by: right)
        return product.high ^ product.low
    }
}

/// An open-addressing table from hashes to slots of some other storage.
///
/// It holds no keys: the owner compares, so a lookup takes no closure, no existential and no copy.
/// Linear probing, removal by shifting back, at most 5/8 full.
struct HashIndex {
    /// Walks the slots that may hold what is looked for.
    struct Probe {
        fileprivate var position: Int
        fileprivate let tag: UInt32
    }

    // Each entry is the hash's low 32 bits above a 32-bit slot plus one; zero is empty. The place of
    // an entry follows from those bits, so growing and removing touch no other memory.
    private var entries: [UInt64]
    private var mask: Int
    private(set) var count = 0

    init() {
        entries = Array(repeating: 0, count: 16)
        mask = 15
    }

    /// Bytes of memory that the table takes.
    var memory: Int { entries.count * 8 }

    @inline(__always)
    func probe(_ hash: UInt64) -> Probe {
        let tag = UInt32(truncatingIfNeeded: hash)
        return Probe(position: Int(tag) & mask, tag: tag)
    }

    /// The next slot whose hash has the same tag, or nil when there is none.
    @inline(__always)
    func next(_ probe: inout Probe) -> Int? {
        while true {
            let entry = entries[probe.position]
            if entry == 0 { return nil }
            probe.position = (probe.position + 1) & mask
            if UInt32(entry >> 32) == probe.tag {
                return Int(UInt32(truncatingIfNeeded: entry)) - 1
            }
        }
    }

    /// Adds a slot.
    mutating func insert(_ slot: Int, hash: UInt64) {
        precondition(slot < Int(UInt32.max) - 1, "a table holds at most 2^32 - 2 rows")
        if count >= entries.count / 8 * 5 { grow() }
        place(UInt64(UInt32(truncatingIfNeeded: hash)) << 32 | UInt64(slot + 1))
        count += 1
    }

    /// Removes a slot that is present.
    mutating func remove(_ slot: Int, hash: UInt64) {
        var hole = Int(UInt32(truncatingIfNeeded: hash)) & mask
        while Int(UInt32(truncatingIfNeeded: entries[hole])) - 1 != slot {
            precondition(entries[hole] != 0, "slot \(slot) is not in the index")
            hole = (hole + 1) & mask
        }
        entries[hole] = 0
        count -= 1
        var position = (hole + 1) & mask
        while entries[position] != 0 {
            let home = Int(entries[position] >> 32) & mask
            // An entry may move back to the hole unless its home lies after the hole.
            if (position - home) & mask >= (position - hole) & mask {
                entries[hole] = entries[position]
                entries[position] = 0
                hole = position
            }
            position = (position + 1) & mask
        }
    }

    private mutating func place(_ entry: UInt64) {
        var position = Int(entry >> 32) & mask
        while entries[position] != 0 { position = (position + 1) & mask }
        entries[position] = entry
    }

    private mutating func grow() {
        let old = entries
        entries = Array(repeating: 0, count: old.count * 2)
        mask = entries.count - 1
        for entry in old where entry != 0 { place(entry) }
    }
}
