#if canImport(Glibc)
    internal import Glibc
#else
    internal import Darwin
#endif

/// Bytes as Redis sent them: keys, members and values have no encoding.
public typealias Bytes = [UInt8]

extension [UInt8] {
    /// Copies a span.
    public init(copying span: borrowing Span<UInt8>) {
        self = unsafe span.withUnsafeBufferPointer { unsafe Array($0) }
    }

    /// Replaces the contents, and allocates only when they do not fit the present capacity.
    package mutating func assign(_ span: borrowing Span<UInt8>) {
        removeAll(keepingCapacity: true)
        unsafe span.withUnsafeBufferPointer { unsafe append(contentsOf: $0) }
    }

    /// Whether the bytes are those of a span.
    @inline(__always)
    package func equals(_ other: borrowing Span<UInt8>) -> Bool {
        guard count == other.count else { return false }
        return unsafe withUnsafeBufferPointer { mine in
            unsafe other.withUnsafeBufferPointer { theirs in
                guard let left = mine.baseAddress, let right = theirs.baseAddress else {
                    return true
                }
                return unsafe memcmp(left, right, mine.count) == 0
            }
        }
    }

    /// Whether these bytes come before others when compared byte by byte, as `COLLATE "C"` does.
    package func precedes(_ other: [UInt8]) -> Bool {
        let common = Swift.min(count, other.count)
        let order = unsafe withUnsafeBufferPointer { mine in
            unsafe other.withUnsafeBufferPointer { theirs in
                guard common > 0, let left = mine.baseAddress, let right = theirs.baseAddress
                else { return Int32(0) }
                return unsafe memcmp(left, right, common)
            }
        }
        return order == 0 ? count < other.count : order < 0
    }

    /// Whether the bytes are those of an ASCII text.
    package func equals(_ text: StaticString) -> Bool {
        guard count == text.utf8CodeUnitCount else { return false }
        return unsafe withUnsafeBufferPointer { mine in
            guard let left = mine.baseAddress else { return true }
            return unsafe memcmp(left, text.utf8Start, mine.count) == 0
        }
    }
}

extension Span where Element == UInt8 {
    /// Whether the bytes are those of an ASCII word, whatever the case of either.
    package func isWord(_ word: StaticString) -> Bool {
        guard count == word.utf8CodeUnitCount else { return false }
        for index in 0..<count {
            let expected = unsafe word.utf8Start[index]
            guard self[index].lowercasedASCII == expected.lowercasedASCII else { return false }
        }
        return true
    }

    /// Whether the bytes begin with others.
    @inline(__always)
    package func hasPrefix(_ prefix: [UInt8]) -> Bool {
        guard prefix.count <= count else { return false }
        return unsafe withUnsafeBufferPointer { mine in
            unsafe prefix.withUnsafeBufferPointer { theirs in
                guard let left = mine.baseAddress, let right = theirs.baseAddress else {
                    return true
                }
                return unsafe memcmp(left, right, theirs.count) == 0
            }
        }
    }
}

extension UInt8 {
    @inline(__always)
    package var lowercasedASCII: UInt8 {
        (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(self) ? self | 0x20 : self
    }
}

/// Reads numbers as Redis does.
package enum Number {
    /// The longest text of a number that is read: the longest double that Redis prints fits.
    package static let textMax = 400

    /// Reads a signed 64-bit integer in canonical form: no sign `+`, no leading zero, no space.
    ///
    /// Source: `string2ll` in Redis's util.c, which decides whether INCR accepts a value.
    package static func integer(_ text: borrowing Span<UInt8>) -> Int64? {
        guard text.count > 0, text.count <= 20 else { return nil }
        let isNegative = text[0] == UInt8(ascii: "-")
        let start = isNegative ? 1 : 0
        guard start < text.count else { return nil }
        if text[start] == UInt8(ascii: "0") {
            return text.count == 1 ? 0 : nil
        }
        var value: Int64 = 0
        for index in start..<text.count {
            let digit = text[index] &- UInt8(ascii: "0")
            guard digit <= 9 else { return nil }
            let (product, overflow) = value.multipliedReportingOverflow(by: 10)
            // Built up on the negative side, which reaches one further than the positive.
            let (sum, overflow2) = product.subtractingReportingOverflow(Int64(digit))
            guard !overflow, !overflow2 else { return nil }
            value = sum
        }
        if isNegative { return value }
        return value == .min ? nil : -value
    }

    /// Reads a double as Redis's `strtod` does, infinities included; not-a-number is no number.
    package static func real(_ text: borrowing Span<UInt8>) -> Double? {
        if text.count <= 15, let integer = integer(text) { return Double(integer) }
        guard text.count > 0, text.count <= textMax, text[0] > UInt8(ascii: " ") else { return nil }
        let count = text.count
        return unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: count + 1) { copy in
            for index in 0..<count { unsafe copy[index] = CChar(bitPattern: text[index]) }
            unsafe copy[count] = 0
            guard let start = copy.baseAddress else { return nil }
            var end: UnsafeMutablePointer<CChar>?
            let value = unsafe strtod(start, &end)
            guard unsafe end == start + count, !value.isNaN else { return nil }
            return value
        }
    }
}

/// Bytes as hexadecimal digits, and back.
package enum Hex {
    /// Two digits for each byte.
    package static func text(_ bytes: Bytes) -> String {
        String(decoding: bytes.flatMap { [digit($0 >> 4), digit($0 & 15)] }, as: UTF8.self)
    }

    /// The digit of a number below 16.
    @inline(__always)
    package static func digit(_ number: UInt8) -> UInt8 {
        number < 10 ? UInt8(ascii: "0") + number : UInt8(ascii: "a") - 10 + number
    }

    /// The bytes of digits that a database wrote.
    package static func bytes(_ text: some StringProtocol) -> Bytes {
        let digits = text.utf8.map { $0 <= 0x39 ? $0 - 0x30 : ($0 | 0x20) - 0x57 }
        return stride(from: 0, to: digits.count - 1, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
    }
}
