internal import Yams

/// Reads one section of the file, and collects what is wrong with it.
///
/// A setting that was not asked for when the section is finished is unknown.
final class SectionReader {
    let path: String
    let line: Int?
    private let entries: [(name: String, node: Node)]
    private let mistakes: MistakeList
    private var asked: Set<String> = []

    /// Collects mistakes; one for the whole file.
    final class MistakeList {
        var mistakes: [ConfigurationMistake] = []
    }

    init(_ node: Node?, path: String, mistakes: MistakeList) {
        self.path = path
        self.mistakes = mistakes
        line = node?.mark?.line
        var entries: [(String, Node)] = []
        if case .mapping(let mapping)? = node {
            for (key, value) in mapping {
                let name = key.string ?? ""
                if entries.contains(where: { $0.0 == name }) {
                    mistakes.mistakes.append(
                        ConfigurationMistake(
                            line: key.mark?.line, path: path.isEmpty ? name : "\(path).\(name)",
                            message: "is given twice", hint: "keep one of them"))
                }
                entries.append((name, value))
            }
        } else if let node, node.null == nil {
            mistakes.mistakes.append(
                ConfigurationMistake(
                    line: node.mark?.line, path: path, message: "expected settings, `name: value`",
                    hint: nil))
        }
        self.entries = entries
    }

    var names: [String] { entries.map(\.name) }

    func node(_ name: String) -> Node? {
        asked.insert(name)
        return entries.last { $0.name == name }?.node
    }

    func has(_ name: String) -> Bool { entries.contains { $0.name == name } }

    func isMapping(_ name: String) -> Bool { node(name)?.mapping != nil }

    func section(_ name: String) -> SectionReader {
        SectionReader(node(name), path: place(name), mistakes: mistakes)
    }

    func text(_ name: String) -> String? {
        guard let node = node(name) else { return nil }
        guard case .scalar(let scalar) = node else {
            mistake(name, "expected a text")
            return nil
        }
        return scalar.string
    }

    func boolean(_ name: String) -> Bool? {
        guard let node = node(name) else { return nil }
        guard let value = node.bool else {
            mistake(name, "expected true or false")
            return nil
        }
        return value
    }

    func integer(_ name: String, _ range: ClosedRange<Int>) -> Int? {
        guard let node = node(name) else { return nil }
        guard let value = node.int, range.contains(value) else {
            mistake(name, "expected a whole number from \(range.lowerBound) to \(range.upperBound)")
            return nil
        }
        return value
    }

    /// A name and its value, as in `string: { views: integer }`.
    func pairs(_ name: String) -> [(name: String, value: String, line: Int?)]? {
        guard let node = node(name) else { return nil }
        guard case .mapping(let mapping) = node else {
            mistake(name, "expected `{ name: value }`")
            return nil
        }
        return mapping.compactMap { key, value in
            guard let key = key.string, case .scalar(let scalar) = value else {
                mistake(name, "expected `{ name: value }`")
                return nil
            }
            return (key, scalar.string, value.mark?.line)
        }
    }

    func mistake(_ name: String, _ message: String, hint: String? = nil, line: Int? = nil) {
        let place = entries.last { $0.name == name }?.node.mark?.line
        mistakes.mistakes.append(
            ConfigurationMistake(
                line: line ?? place ?? self.line, path: self.place(name), message: message,
                hint: hint))
    }

    /// Reports the settings that nobody asked for.
    func finish() {
        for name in names where !asked.contains(name) {
            let near = asked.sorted().min { Self.distance($0, name) < Self.distance($1, name) }
            let isNear = near.map { Self.distance($0, name) <= 2 } ?? false
            let hint =
                isNear
                ? "did you mean `\(near ?? "")`?"
                : "known here: \(asked.sorted().joined(separator: ", "))"
            mistake(name, "unknown setting", hint: hint)
        }
    }

    private func place(_ name: String) -> String { path.isEmpty ? name : "\(path).\(name)" }

    /// How many letters must change to make one name of another.
    private static func distance(_ left: String, _ right: String) -> Int {
        let (left, right) = (Array(left), Array(right))
        var row = Array(0...right.count)
        for i in left.indices {
            var diagonal = row[0]
            row[0] = i + 1
            for j in right.indices {
                let change = left[i] == right[j] ? 0 : 1
                let next = min(row[j] + 1, row[j + 1] + 1, diagonal + change)
                diagonal = row[j + 1]
                row[j + 1] = next
            }
        }
        return row[right.count]
    }
}
