/// Which keys a table maps: literals and placeholders, such as `views:<page>`.
///
/// A placeholder takes one or more bytes up to the next literal; the last one takes the rest, and a
/// literal after the last placeholder must end the key.
public struct KeyPattern: Hashable, Sendable {
    /// A piece of a pattern.
    public enum Segment: Hashable, Sendable {
        /// Bytes that the key has in this place.
        case literal(Bytes)
        /// A key column.
        case placeholder(Column)
    }

    /// The pieces; no two placeholders touch.
    public let segments: [Segment]
    /// The bytes with which every key of the pattern begins.
    public let prefix: Bytes
    /// The key columns, in the key's order.
    public let columns: [Column]
    private let isPrefixAndRest: Bool

    /// Creates a pattern.
    ///
    /// - Parameter segments: At least one placeholder or literal; no two placeholders in a row.
    public init(segments: [Segment]) {
        self.segments = segments
        if case .literal(let bytes)? = segments.first { prefix = bytes } else { prefix = [] }
        columns = segments.compactMap { segment in
            if case .placeholder(let column) = segment { column } else { nil }
        }
        let start = prefix.isEmpty ? 0 : 1
        isPrefixAndRest = segments.count == start + 1 && columns.count == 1
    }

    /// Whether a key is one of this pattern's.
    @inline(__always)
    package func matches(_ key: borrowing Span<UInt8>) -> Bool {
        guard key.hasPrefix(prefix) else { return false }
        if isPrefixAndRest { return key.count > prefix.count }
        return split(key) != nil
    }

    /// The ranges of a key that its placeholders take, or nil when the key is not one of these.
    package func split(_ key: borrowing Span<UInt8>) -> [Range<Int>]? {
        var ranges: [Range<Int>] = []
        var position = 0
        var open: Int?
        for (index, segment) in segments.enumerated() {
            switch segment {
            case .placeholder:
                open = position
            case .literal(let bytes):
                guard let start = open else {
                    guard Self.literal(bytes, in: key, at: position) else { return nil }
                    position += bytes.count
                    continue
                }
                let isLast = index == segments.count - 1
                guard let found = Self.find(bytes, in: key, from: start + 1, atEnd: isLast)
                else { return nil }
                ranges.append(start..<found)
                position = found + bytes.count
                open = nil
            }
        }
        if let start = open {
            guard start < key.count else { return nil }
            ranges.append(start..<key.count)
            position = key.count
        }
        return position == key.count ? ranges : nil
    }

    /// Puts a key together from the bytes of its placeholders.
    package func key(from parts: [Bytes]) -> Bytes {
        var key: Bytes = []
        var index = 0
        for segment in segments {
            switch segment {
            case .literal(let bytes): key += bytes
            case .placeholder:
                key += parts[index]
                index += 1
            }
        }
        return key
    }

    /// The pattern as `SCAN … MATCH` takes it.
    package var glob: Bytes {
        var glob: Bytes = []
        for byte in prefix {
            if Array("*?[]\\^".utf8).contains(byte) { glob.append(UInt8(ascii: "\\")) }
            glob.append(byte)
        }
        if columns.isEmpty { return glob }
        glob.append(UInt8(ascii: "*"))
        return glob
    }

    private static func literal(
        _ bytes: Bytes, in key: borrowing Span<UInt8>, at position: Int,
    ) -> Bool {
        guard position + bytes.count <= key.count else { return false }
        for index in bytes.indices where key[position + index] != bytes[index] { return false }
        return true
    }

    private static func find(
        _ bytes: Bytes, in key: borrowing Span<UInt8>, from start: Int, atEnd: Bool,
    ) -> Int? {
        let last = key.count - bytes.count
        guard start <= last else { return nil }
        if atEnd { return literal(bytes, in: key, at: last) ? last : nil }
        return (start...last).first(where: { literal(bytes, in: key, at: $0) })
    }
}

extension KeyPattern {
    private enum Token: Equatable {
        case byte(UInt8)
        case any
        case anyNumber
    }

    private var tokens: [Token] {
        segments.flatMap { segment -> [Token] in
            switch segment {
            case .literal(let bytes): bytes.map(Token.byte)
            case .placeholder: [.any, .anyNumber]
            }
        }
    }

    /// Whether some key matches both patterns.
    package func overlaps(_ other: KeyPattern) -> Bool {
        let left = tokens
        let right = other.tokens
        // reachable[j] holds whether left's first i tokens and right's first j can spell one text.
        var seen = Set<[Int]>()
        var open = [[0, 0]]
        while let state = open.popLast() {
            guard seen.insert(state).inserted else { continue }
            let (i, j) = (state[0], state[1])
            if i == left.count, j == right.count { return true }
            if i < left.count, left[i] == .anyNumber { open.append([i + 1, j]) }
            if j < right.count, right[j] == .anyNumber { open.append([i, j + 1]) }
            guard i < left.count, j < right.count else { continue }
            if case .byte(let a) = left[i], case .byte(let b) = right[j], a != b { continue }
            open.append([
                left[i] == .anyNumber ? i : i + 1, right[j] == .anyNumber ? j : j + 1,
            ])
        }
        return false
    }
}
