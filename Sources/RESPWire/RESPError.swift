/// Bytes that are not RESP.
public struct RESPError: Error, Hashable, Sendable, CustomStringConvertible {
    /// Where it stands, in bytes from the beginning of the value or command.
    public let offset: Int
    /// What was expected there.
    public let expected: String

    /// Creates an error.
    public init(offset: Int, expected: String) {
        self.offset = offset
        self.expected = expected
    }

    /// The error as one sentence.
    public var description: String { "malformed RESP at byte \(offset): expected \(expected)" }
}

/// Reads the numbers of RESP's headers.
enum RESPNumber {
    /// The longest header that is taken: a sign and 19 digits.
    static let digitsMax = 20

    /// The number that ends at the next CRLF, and where the line after it begins; nil when the line
    /// is not complete yet.
    static func line(
        _ bytes: borrowing Span<UInt8>, from start: Int,
    ) throws(RESPError) -> (value: Int, next: Int)? {
        var index = start
        var isNegative = false
        var value = 0
        if index < bytes.count, bytes[index] == UInt8(ascii: "-") {
            isNegative = true
            index += 1
        }
        let first = index
        while index < bytes.count {
            let byte = bytes[index]
            if byte == 0x0D {
                guard index > first else { throw RESPError(offset: start, expected: "a number") }
                guard index + 1 < bytes.count else { return nil }
                guard bytes[index + 1] == 0x0A else {
                    throw RESPError(offset: index + 1, expected: "a line feed")
                }
                return (isNegative ? -value : value, index + 2)
            }
            let digit = byte &- UInt8(ascii: "0")
            guard digit <= 9, index - first < digitsMax else {
                throw RESPError(offset: index, expected: "a digit")
            }
            let (product, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, overflow2) = product.addingReportingOverflow(Int(digit))
            guard !overflow, !overflow2 else {
                throw RESPError(offset: index, expected: "a number of 64 bits")
            }
            value = sum
            index += 1
        }
        guard index - first <= digitsMax else {
            throw RESPError(offset: index, expected: "the end of the number")
        }
        return nil
    }
}
