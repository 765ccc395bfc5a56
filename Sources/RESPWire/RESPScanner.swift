/// Finds where a reply ends that comes in many pieces, looking at each piece once.
///
/// It holds no bytes: the caller gives it those from the beginning of the reply on.
public struct RESPScanner {
    private var position = 0
    /// How many values are still to come.
    private var open = 1

    /// Creates a scanner.
    public init() {}

    /// The length of the reply at the beginning of some bytes, or nil when it is not complete.
    public mutating func length(_ bytes: borrowing Span<UInt8>) throws(RESPError) -> Int? {
        while open > 0 {
            guard position < bytes.count else { return nil }
            guard let next = try value(bytes, position) else { return nil }
            position = next
            open -= 1
        }
        defer { self = RESPScanner() }
        return position
    }

    // Where a value ends, or the head of one that has others in it.
    private mutating func value(
        _ bytes: borrowing Span<UInt8>, _ start: Int,
    ) throws(RESPError) -> Int? {
        switch bytes[start] {
        case UInt8(ascii: "$"), UInt8(ascii: "!"), UInt8(ascii: "="):
            guard let length = try RESPNumber.line(bytes, from: start + 1) else { return nil }
            guard length.value >= 0 else { return length.next }
            let end = length.next.addingReportingOverflow(length.value)
            guard !end.overflow, end.partialValue < bytes.count - 1 else { return nil }
            return end.partialValue + 2
        case UInt8(ascii: "*"), UInt8(ascii: "~"), UInt8(ascii: ">"):
            return try head(bytes, start, factor: 1)
        case UInt8(ascii: "%"): return try head(bytes, start, factor: 2)
        case UInt8(ascii: "|"):
            let next = try head(bytes, start, factor: 2)
            // The value that it says something about comes after it.
            if next != nil { open += 1 }
            return next
        case UInt8(ascii: "+"), UInt8(ascii: "-"), UInt8(ascii: ":"), UInt8(ascii: ","),
            UInt8(ascii: "("), UInt8(ascii: "#"), UInt8(ascii: "_"):
            var end = start
            while end + 1 < bytes.count {
                if bytes[end] == 0x0D, bytes[end + 1] == 0x0A { return end + 2 }
                end += 1
            }
            return nil
        default: throw RESPError(offset: start, expected: "the type of a reply")
        }
    }

    private mutating func head(
        _ bytes: borrowing Span<UInt8>, _ start: Int, factor: Int,
    ) throws(RESPError) -> Int? {
        guard let count = try RESPNumber.line(bytes, from: start + 1) else { return nil }
        // No server sends so many: they are no lengths.
        guard count.value <= Int(Int32.max), open <= 1 << 40 else {
            throw RESPError(offset: start, expected: "a length")
        }
        open += max(count.value, 0) * factor
        return count.next
    }
}
