/// A place in a JSON document, such as `$.user.tags[0]`; `$` is the whole document.
public struct JSONPath: Hashable, Sendable {
    /// One step into a document.
    public enum Step: Hashable, Sendable {
        /// The member of an object; where a name stands twice, the last one counts.
        case member(Bytes)
        /// The element of an array, from 0.
        case element(Int)
    }

    /// The steps from the whole document.
    public let steps: [Step]

    /// Reads a path; nil when the text is none.
    public init?(_ text: String) {
        guard text.first == "$" else { return nil }
        var steps: [Step] = []
        var rest = text.dropFirst()
        while let mark = rest.first {
            rest = rest.dropFirst()
            switch mark {
            case ".":
                let name = rest.prefix { $0 != "." && $0 != "[" }
                guard !name.isEmpty else { return nil }
                steps.append(.member(Bytes(name.utf8)))
                rest = rest[name.endIndex...]
            case "[":
                let digits = rest.prefix { $0 != "]" }
                let number = digits.allSatisfy { $0.isASCII && $0.isNumber } ? Int(digits) : nil
                rest = rest[digits.endIndex...]
                guard let number, rest.first == "]" else { return nil }
                rest = rest.dropFirst()
                steps.append(.element(number))
            default: return nil
            }
        }
        self.steps = steps
    }

    /// What a document has in this place, as the text that a column takes: strings without their
    /// quotes unless the column is JSON, all else as it is written. Nil when there is nothing, or null.
    ///
    /// - Parameter document: A valid JSON document.
    package func value(in document: borrowing Span<UInt8>, isJSON: Bool) -> Bytes? {
        var scanner = JSONText.Scanner()
        var range = scanner.range(document, depth: 0)
        for step in steps {
            guard let here = range else { return nil }
            range = Self.find(step, in: document, here)
        }
        guard let found = range, !document.extracting(found).isWord("null") else { return nil }
        let text = document.extracting(found)
        let isString = text.count > 0 && text[0] == UInt8(ascii: "\"")
        return isString && !isJSON ? JSONText.decode(text) : Bytes(copying: text)
    }

    private static func find(
        _ step: Step, in document: borrowing Span<UInt8>, _ range: Range<Int>,
    ) -> Range<Int>? {
        var found: Range<Int>?
        switch (step, document[range.lowerBound]) {
        case (.member(let name), UInt8(ascii: "{")):
            JSONText.Scanner.forEach(document, range, isObject: true) { document, label, value, _ in
                if JSONText.decode(document.extracting(label)) == name { found = value }
            }
        case (.element(let wanted), UInt8(ascii: "[")):
            JSONText.Scanner.forEach(document, range, isObject: false) { _, _, value, index in
                if index == wanted { found = value }
            }
        default: break
        }
        return found
    }
}

extension JSONText {
    /// The bytes that a JSON string means.
    ///
    /// - Parameter text: A valid string with its quotes.
    static func decode(_ text: borrowing Span<UInt8>) -> Bytes {
        var bytes: Bytes = []
        var index = 1
        while index < text.count - 1 {
            let byte = text[index]
            index += 1
            guard byte == UInt8(ascii: "\\") else {
                bytes.append(byte)
                continue
            }
            let escaped = text[index]
            index += 1
            switch escaped {
            case UInt8(ascii: "b"): bytes.append(8)
            case UInt8(ascii: "f"): bytes.append(12)
            case UInt8(ascii: "n"): bytes.append(10)
            case UInt8(ascii: "r"): bytes.append(13)
            case UInt8(ascii: "t"): bytes.append(9)
            case UInt8(ascii: "u"):
                var units = [unit(text, at: index)]
                index += 4
                // A pair of surrogates is one character; one alone becomes U+FFFD.
                if 0xD800..<0xDC00 ~= units[0], index + 6 <= text.count - 1,
                    text[index] == UInt8(ascii: "\\"), text[index + 1] == UInt8(ascii: "u")
                {
                    units.append(unit(text, at: index + 2))
                    index += 6
                }
                bytes += String(decoding: units, as: UTF16.self).utf8
            default: bytes.append(escaped)
            }
        }
        return bytes
    }

    private static func unit(_ text: borrowing Span<UInt8>, at index: Int) -> UInt16 {
        var value: UInt16 = 0
        for place in index..<min(index + 4, text.count) {
            let byte = text[place].lowercasedASCII
            let digit = byte <= UInt8(ascii: "9") ? byte &- UInt8(ascii: "0") : byte &- 87
            value = value << 4 | UInt16(digit & 15)
        }
        return value
    }
}

extension JSONText.Scanner {
    /// The range of the value that begins here, without the space around it; nil if it is none.
    mutating func range(_ text: borrowing Span<UInt8>, depth: Int) -> Range<Int>? {
        space(text)
        let start = position
        guard value(text, depth: depth) else { return nil }
        return start..<position
    }

    /// Visits the members of an object or the elements of an array in a valid document.
    static func forEach(
        _ text: borrowing Span<UInt8>, _ range: Range<Int>, isObject: Bool,
        _ visit: (borrowing Span<UInt8>, Range<Int>, Range<Int>, Int) -> Void,
    ) {
        var scanner = JSONText.Scanner(position: range.lowerBound + 1)
        var index = 0
        scanner.space(text)
        while scanner.position < range.upperBound - 1 {
            var label = 0..<0
            if isObject {
                scanner.space(text)
                let start = scanner.position
                guard scanner.string(text) else { return }
                label = start..<scanner.position
                scanner.space(text)
                guard scanner.take(UInt8(ascii: ":"), text) else { return }
            }
            guard let value = scanner.range(text, depth: 0) else { return }
            visit(text, label, value, index)
            index += 1
            scanner.space(text)
            guard scanner.take(UInt8(ascii: ","), text) else { return }
        }
    }
}
