import SluiceCore
internal import Yams

/// Reads a configuration, and reports all mistakes at once.
public struct ConfigurationReader {
    private let environment: [String: String]
    private let readFile: (String) -> String?
    private let list = SectionReader.MistakeList()

    /// Creates a reader.
    ///
    /// - Parameters:
    ///   - environment: What `${NAME}` stands for.
    ///   - readFile: The contents of a file at a path, for which `${file:PATH}` stands.
    public init(
        environment: [String: String], readFile: @escaping (String) -> String? = { _ in nil },
    ) {
        self.environment = environment
        self.readFile = readFile
    }

    /// Reads a file's text.
    ///
    /// - Parameters:
    ///   - text: YAML.
    ///   - file: The file's name, for messages.
    public func read(_ text: String, file: String) throws(ConfigurationError) -> Configuration {
        let root: Node?
        do {
            root = try Yams.compose(yaml: text)
        } catch {
            throw ConfigurationError(file: file, mistakes: [Self.mistake(error)])
        }
        let configuration = read(SectionReader(root, path: "", mistakes: list))
        guard list.mistakes.isEmpty else {
            let sorted = list.mistakes.enumerated().sorted {
                ($0.element.line ?? 0, $0.offset) < ($1.element.line ?? 0, $1.offset)
            }
            throw ConfigurationError(file: file, mistakes: sorted.map(\.element))
        }
        return configuration
    }

    private static func mistake(_ error: any Error) -> ConfigurationMistake {
        guard case YamlError.parser(_, let problem, let mark, _)? = error as? YamlError else {
            return ConfigurationMistake(
                line: nil, path: "", message: "this is no YAML: \(error)", hint: nil)
        }
        return ConfigurationMistake(
            line: mark.line, path: "", message: "this is no YAML: \(problem)",
            hint: "a text with `: ` or `{` in it needs quotes")
    }

    private func read(_ root: SectionReader) -> Configuration {
        var configuration = Configuration()
        if let name = root.text("name") { configuration.name = name }
        readRedis(root.section("redis"), &configuration)
        readDatabase(root.section("database"), &configuration)
        readSync(root.section("sync"), &configuration)
        let buffer = root.section("buffer")
        if let text = buffer.text("max_memory") {
            if let bytes = Units.bytes(text), bytes >= 16 << 20 {
                configuration.policy.memoryMax = bytes
            } else {
                buffer.mistake("max_memory", "expected a size of at least 16MB, such as 512MB")
            }
        }
        buffer.finish()
        readLetters(root.section("dead_letters"), &configuration)
        readTracking(root.section("tracking"), &configuration)
        readAdmin(root.section("admin"), &configuration)
        readTables(root.section("tables"), root, &configuration)
        root.finish()
        return configuration
    }

    private func readRedis(_ section: SectionReader, _ configuration: inout Configuration) {
        if let url = section.text("url").map({ expand($0, section, "url") }) {
            let schemes = ["redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"]
            if !schemes.contains(where: { url.hasPrefix($0 + "://") }) {
                section.mistake(
                    "url",
                    "expected redis://HOST:PORT/DB, rediss:// for TLS, unix://PATH, or "
                        + "redis+sentinel://HOST:PORT,HOST:PORT/MASTER-NAME")
            }
            configuration.redis.url = url
        }
        configuration.redis.caFile = section.text("tls_ca_file")
        if let configures = section.boolean("configure") {
            configuration.redis.configures = configures
        }
        if let holdsBack = section.boolean("hold_back") {
            configuration.redis.holdsBack = holdsBack
        }
        if let text = section.text("capture") {
            if let capture = Capture(rawValue: text) {
                configuration.redis.capture = capture
            } else {
                section.mistake(
                    "capture", "expected replication, dirty-set or tracking",
                    hint: "`sluice check` says which the server permits")
            }
        }
        section.finish()
    }

    private func readDatabase(_ section: SectionReader, _ configuration: inout Configuration) {
        if let url = section.text("url").map({ expand($0, section, "url") }) {
            if url.hasPrefix("sqlite:"), url.count > "sqlite:".count {
                configuration.database = .sqlite(path: String(url.dropFirst("sqlite:".count)))
            } else if url.hasPrefix("postgres://") || url.hasPrefix("postgresql://") {
                configuration.database = .postgres(url: url)
            } else {
                section.mistake(
                    "url", "expected sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE",
                    hint: url.hasPrefix("mysql:") ? "mysql is planned, but not there yet" : nil)
            }
        }
        if let creates = section.boolean("create_tables") { configuration.createsTables = creates }
        if let text = section.text("lease") {
            if let lease = Units.duration(text), lease >= .seconds(1), lease <= .seconds(3_600) {
                configuration.lease = lease
            } else {
                section.mistake("lease", "expected a time from 1s to 1h, such as 10s")
            }
        }
        section.finish()
    }

    private func readSync(_ section: SectionReader, _ configuration: inout Configuration) {
        if let text = section.text("interval") {
            if let interval = Units.duration(text), interval >= .milliseconds(1),
                interval <= .seconds(3_600)
            {
                configuration.policy.interval = interval
            } else {
                section.mistake("interval", "expected a time from 1ms to 1h, such as 500ms or 2s")
            }
        }
        if let rows = section.integer("max_rows", 1...10_000_000) {
            configuration.policy.rowsMax = rows
        }
        section.finish()
    }

    private func readLetters(_ section: SectionReader, _ configuration: inout Configuration) {
        if let text = section.text("retry_after") {
            if let pause = Units.duration(text), pause >= .seconds(1), pause <= .seconds(86_400) {
                configuration.retryAfter = pause
            } else {
                section.mistake("retry_after", "expected a time from 1s to 24h, such as 1m")
            }
        }
        section.finish()
    }

    private func readTracking(_ section: SectionReader, _ configuration: inout Configuration) {
        if let text = section.text("audit_interval") {
            if let pause = Units.duration(text), pause >= .seconds(1), pause <= .seconds(604_800) {
                configuration.auditInterval = pause
            } else {
                section.mistake("audit_interval", "expected a time from 1s to 168h, such as 6h")
            }
        }
        section.finish()
    }

    private static let tokenMin = 16

    private func readAdmin(_ section: SectionReader, _ configuration: inout Configuration) {
        if let token = section.text("token").map({ expand($0, section, "token") }) {
            if token.utf8.count >= Self.tokenMin, token.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F })
            {
                configuration.adminToken = token
            } else {
                section.mistake(
                    "token",
                    "expected at least \(Self.tokenMin) characters of ASCII without spaces",
                    hint: "token: ${SLUICE_TOKEN}, made with `openssl rand -hex 24`")
            }
        }
        if let text = section.text("listen") {
            let parts = text.split(separator: ":").map(String.init)
            let isLoopback = ["127.0.0.1", "localhost"].contains(parts.first ?? "")
            if parts.count == 2, let port = Int(parts[1]), (0...65_535).contains(port) {
                configuration.adminHost = parts[0]
                configuration.adminPort = port
                if !isLoopback, !section.has("token") {
                    section.mistake(
                        "listen", "an address that is not of this machine needs a token",
                        hint: "token: ${SLUICE_TOKEN}, made with `openssl rand -hex 24`")
                }
            } else {
                section.mistake("listen", "expected HOST:PORT, such as 127.0.0.1:9187")
            }
        }
        section.finish()
    }

    private func readTables(
        _ section: SectionReader, _ root: SectionReader, _ configuration: inout Configuration,
    ) {
        if section.names.isEmpty {
            root.mistake(
                "tables", "no table is mapped",
                hint:
                    "tables: { page_views: { keys: \"views:<page>\", string: { views: integer } } }"
            )
        }
        var lines: [Int?] = []
        for name in section.names {
            let table = section.section(name)
            let reader = TableReader(
                name: name, section: table, database: configuration.redis.database)
            if let mapping = reader.read() {
                for (index, other) in configuration.tables.enumerated()
                where other.type == mapping.type && other.overlaps(mapping) {
                    table.mistake(
                        "keys", "some keys would belong to \(other.name) too, of the same type",
                        hint: "table \(other.name) on line \(lines[index] ?? 0); "
                            + "make the patterns differ")
                }
                configuration.tables.append(mapping)
                lines.append(table.line)
            }
            table.finish()
        }
    }

    /// Puts the environment's values in the place of `${NAME}`, and files' in that of `${file:PATH}`.
    private func expand(_ text: String, _ section: SectionReader, _ name: String) -> String {
        var result = ""
        var rest = text[...]
        while let start = rest.firstRange(of: "${") {
            result += rest[..<start.lowerBound]
            guard let end = rest[start.upperBound...].firstIndex(of: "}") else { break }
            let variable = String(rest[start.upperBound..<end])
            if variable.hasPrefix("file:") {
                let path = String(variable.dropFirst("file:".count))
                if let contents = readFile(path) {
                    // Editors end a file with a new line, and no secret has one.
                    result += contents.trimmingSuffix(while: \.isNewline)
                } else {
                    section.mistake(
                        name, "the file \(path) can't be read",
                        hint: "does it exist, and may this user read it?")
                }
            } else if let value = environment[variable] {
                result += value
            } else {
                section.mistake(
                    name, "the environment has no \(variable)", hint: "export \(variable)=…")
            }
            rest = rest[rest.index(after: end)...]
        }
        return result + rest
    }
}

/// Reads numbers with units.
enum Units {
    static func duration(_ text: String) -> Duration? {
        let digits = text.prefix { $0.isNumber || $0 == "." }
        guard let number = Double(digits), number < 1e9 else { return nil }
        switch text.dropFirst(digits.count) {
        case "ms": return .milliseconds(number)
        case "s": return .seconds(number)
        case "m", "min": return .seconds(number * 60)
        case "h": return .seconds(number * 3_600)
        default: return nil
        }
    }

    static func bytes(_ text: String) -> Int? {
        let digits = text.prefix { $0.isNumber }
        guard let number = Int(digits), number < 1 << 40 else { return nil }
        switch text.dropFirst(digits.count).uppercased() {
        case "", "B": return number
        case "KB", "K": return number << 10
        case "MB", "M": return number << 20
        case "GB", "G": return number << 30
        default: return nil
        }
    }
}

extension String {
    fileprivate func trimmingSuffix(while isIn: (Character) -> Bool) -> Substring {
        var end = endIndex
        while end > startIndex, isIn(self[index(before: end)]) { end = index(before: end) }
        return self[..<end]
    }
}
