internal import Foundation
internal import SluiceCore

// Columns that take a part of a value, worked out without the code that fills them.
extension RowComparison {
    /// What columns take of a document or a HyperLogLog.
    func derived(
        _ mapping: TableMapping, _ key: String, _ content: String, _ redis: RedisClient,
    ) async throws -> [String] {
        var values: [String] = []
        let options = JSONSerialization.ReadingOptions.fragmentsAllowed
        let document = try? JSONSerialization.jsonObject(with: Data(content.utf8), options: options)
        for (source, column) in zip(mapping.sources, mapping.values) {
            switch source {
            case .path(let path): values.append(text(path, in: document, column))
            case .count:
                // Alone, PFCOUNT writes what it counted into the key; of a union it writes nothing.
                let count = try await redis.send("PFCOUNT", key, key)
                values.append(count.first.flatMap { $0 } ?? "null")
            default: values.append(meant(content, column))
            }
        }
        return values
    }

    /// What columns take of a member of a sorted set.
    func place(
        _ mapping: TableMapping, _ key: String, _ pairs: [String], _ index: Int,
        _ redis: RedisClient,
    ) async throws -> [String] {
        let script = "return redis.call('GEOPOS', KEYS[1], ARGV[1])[1]"
        let place = try await redis.send("EVAL_RO", script, "1", key, pairs[index])
        let score = Double(pairs[index + 1]) ?? -1
        let exact = GeoPlace(score: score)
        // Redis says them with 17 decimals, which near zero are fewer digits than a double has.
        func degrees(_ text: String?, _ exact: Double?) -> String {
            guard let said = text.flatMap({ Double($0) }) else { return "null" }
            guard let exact, abs(said - exact) < 1e-15 else { return "\(said)" }
            return "\(exact)"
        }
        return mapping.sources.map { source in
            switch source {
            case .longitude: degrees(place.first.flatMap { $0 }, exact?.longitude)
            case .latitude: degrees(place.last.flatMap { $0 }, exact?.latitude)
            default: "\(score)"
            }
        }
    }

    private func text(_ path: JSONPath, in document: Any?, _ column: Column) -> String {
        var value = document
        for step in path.steps {
            switch step {
            case .member(let name):
                value = (value as? [String: Any])?[String(decoding: name, as: UTF8.self)]
            case .element(let index):
                let elements = value as? [Any] ?? []
                value = elements.indices.contains(index) ? elements[index] : nil
            }
        }
        guard let value, !(value is NSNull) else { return "null" }
        if column.type != .json, let text = value as? String { return meant(text, column) }
        let data = try? JSONSerialization.data(
            withJSONObject: value, options: [.sortedKeys, .fragmentsAllowed])
        return meant(String(decoding: data ?? Data(), as: UTF8.self), column)
    }
}
