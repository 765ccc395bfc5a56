import SluiceCore
import SluiceTesting
import SluiceVerify
import Testing

/// What verify makes of documents, beside what fills the tables: the two are worked out apart.
@Suite("Documents")
struct DocumentTests {
    /// A document that can be written in many ways.
    private indirect enum Document {
        case word(String)
        /// The digits of a whole number, and how many of them stand after the point.
        case number(String, Int)
        case string(String)
        case array([Document])
        case object([(name: String, value: Document)])
    }

    private static let strings = ["", "a", "b\"", "\\", "é", "🎈", "\n", "$.x", "\\x41", "a/b"]

    private static func document(_ random: inout SplitMix64, depth: Int = 0) -> Document {
        switch random.pick(0..<(depth < 3 ? 6 : 4)) {
        case 0: return .word(["null", "true", "false"][random.pick(0..<3)])
        case 1:
            let digits = (0..<random.pick(1..<25)).map { _ in "\(random.pick(1..<10))" }
            return .number(digits.joined(), random.pick(0..<digits.count))
        case 2, 3: return .string(strings[random.pick(0..<strings.count)])
        case 4:
            return .array((0..<random.pick(0..<4)).map { _ in document(&random, depth: depth + 1) })
        default:
            let names = Set((0..<random.pick(0..<4)).map { _ in random.pick(0..<strings.count) })
            return .object(
                names.map { (strings[$0], document(&random, depth: depth + 1)) })
        }
    }

    /// Writes a document, with spaces, escapes, orders and forms of numbers as they come.
    private static func text(_ document: Document, _ random: inout SplitMix64) -> String {
        var parts: [String]
        switch document {
        case .word(let word): return word
        case .number(let digits, let decimals): return number(digits, decimals, &random)
        case .string(let string): return quoted(string, &random)
        case .array(let elements):
            parts = elements.map { text($0, &random) }
            return "[" + parts.joined(separator: random.oneIn(2) ? " ,\n" : ",") + "]"
        case .object(var members):
            if random.oneIn(2) { members.reverse() }
            parts = members.map { quoted($0.name, &random) + " : " + text($0.value, &random) }
            // Of a name that stands twice, the last counts.
            if let first = members.first, random.oneIn(3) {
                parts.insert(quoted(first.name, &random) + ":0", at: 0)
            }
            return "{ " + parts.joined(separator: ",") + "\t}"
        }
    }

    private static func number(
        _ digits: String, _ decimals: Int, _ random: inout SplitMix64,
    ) -> String {
        let point = digits.index(digits.endIndex, offsetBy: -decimals)
        switch random.pick(0..<3) {
        case 0: return digits + "e-\(decimals)"
        case 1: return digits + "00E-\(decimals + 2)"
        default: return decimals == 0 ? digits : digits[..<point] + "." + digits[point...]
        }
    }

    private static func quoted(_ string: String, _ random: inout SplitMix64) -> String {
        let escapes = random.oneIn(2)
        let inner = string.unicodeScalars.map { scalar -> String in
            switch scalar {
            case "\"": return "\\\""
            case "\\": return "\\\\"
            case "\n": return escapes ? "\\u000A" : "\\n"
            case "/": return escapes ? "\\/" : "/"
            default:
                guard escapes, !scalar.isASCII else { return String(Character(scalar)) }
                return UTF16.encode(scalar)!.map { "\\u" + String($0, radix: 16).leading }.joined()
            }
        }
        return "\"" + inner.joined() + "\""
    }

    @Test("a document is the same however it is written, and another is not")
    func canonical() throws {
        let seed = CrashTests.seed
        var random = SplitMix64(seed: seed)
        var seen: [Bytes: String] = [:]
        for _ in 0..<3_000 {
            let document = Self.document(&random)
            let texts = (0..<3).map { _ in Self.text(document, &random) }
            let forms = texts.map { JSONDocument(Bytes($0.utf8))?.canonical }
            #expect(forms[0] != nil, "seed \(seed): \(texts[0])")
            #expect(Set(forms).count == 1, "seed \(seed): \(texts)")
            guard let form = forms[0], let before = seen.updateValue("\(document)", forKey: form)
            else { continue }
            #expect(Self.isSame(before, "\(document)"), "seed \(seed): \(texts[0])")
        }
    }

    // Members of an object may stand in any order.
    private static func isSame(_ one: String, _ other: String) -> Bool {
        one.utf8.sorted() == other.utf8.sorted()
    }

    @Test("a path finds what fills the column")
    func paths() throws {
        let seed = CrashTests.seed
        var random = SplitMix64(seed: seed)
        let paths = ["$", "$.a", "$[0]", "$[1].é", "$.é[2]", "$.a.a", "$.🎈.b\"", "$[9]"]
            .compactMap(JSONPath.init)
        #expect(paths.count == 8)
        var found = 0
        for _ in 0..<3_000 {
            let text = Bytes(Self.text(Self.document(&random), &random).utf8)
            let document = try #require(JSONDocument(text))
            for path in paths {
                for isJSON in [true, false] {
                    let filled = path.value(in: text.span, isJSON: isJSON)
                    let expected = document.value(at: path, isJSON: isJSON)
                    #expect(
                        filled == expected,
                        "seed \(seed): \(String(decoding: text, as: UTF8.self)) \(path)")
                    found += filled == nil ? 0 : 1
                }
            }
        }
        #expect(found > 3_000)
    }

    @Test("what is no document is none, and no number ends the process")
    func edges() {
        for text in [
            "", "01", "[01]", "1.", ".5", "-", "+1", "1e", "1e+", "\"\n\"", "\"\\q\"", "\"\\u12\"",
            "\"\\u+123\"", "nul", "[1,]", "{\"a\"}", "{a:1}", "[1 2]", "1 2", "\"", "\"\\",
            String(repeating: "[", count: 5_000),
        ] { #expect(JSONDocument(Bytes(text.utf8)) == nil, "\(text.prefix(20))") }
        for exponent in ["\(Int.min)", "\(Int.max)", "4294967296", "99999999999999999999"] {
            let text = Bytes("{\"a\":1e\(exponent),\"b\":\"x\"}".utf8)
            let document = JSONDocument(text)
            #expect(document?.canonical == text)
            #expect(
                JSONPath("$.b").flatMap { document?.value(at: $0, isJSON: false) }
                    == Bytes("x".utf8))
        }
        #expect(JSONDocument(Bytes("-0.00e5".utf8))?.canonical == Bytes("0".utf8))
    }

    @Test("bytes in documents are what verify expects, and no two are alike")
    func bytes() throws {
        var random = SplitMix64(seed: CrashTests.seed)
        var seen: [Bytes: Bytes] = [:]
        for _ in 0..<5_000 {
            let pool: Bytes = [0, 0x5C, 0x78, 0x41, 0x34, 0xC3, 0xA9, 0xFF, 0x0A, 0x22]
            let bytes = (0..<random.pick(0..<7)).map { _ in pool[random.pick(0..<pool.count)] }
            var json: Bytes = []
            JSONText.append(any: bytes.span, to: &json)
            let written = try #require(JSONDocument(json))
            let root = try #require(JSONPath("$"))
            #expect(written.value(at: root, isJSON: false) == Text.inJSON(bytes))
            let before = seen.updateValue(bytes, forKey: json)
            #expect(before == nil || before == bytes)
        }
    }
}

extension String {
    /// With zeros before it, four digits.
    fileprivate var leading: String { String(repeating: "0", count: max(0, 4 - count)) + self }
}
