import NIOPosix
import SluiceConfiguration
import SluiceCore
import SluiceRedis

/// Which ways of capture a server permits to a user, asked without beginning with any.
struct CaptureModes {
    let reader: KeyReader
    let info: ServerInfo
    let endpoint: RedisEndpoint

    private typealias Finding = CheckCommand.Finding

    private enum Answer {
        case permitted
        case forbidden(String, hint: String?)
    }

    /// What a check says of the mode that was chosen, and of the others.
    func findings(_ chosen: Capture) async -> [CheckCommand.Finding] {
        var permitted: [Capture] = []
        var reasons: [Capture: (text: String, hint: String?)] = [:]
        for mode in Capture.allCases {
            switch await answer(mode) {
            case .permitted: permitted.append(mode)
            case .forbidden(let why, let hint): reasons[mode] = (why, hint)
            }
        }
        let names = permitted.map(\.rawValue).joined(separator: ", ")
        var findings: [Finding] = []
        if let best = permitted.first {
            findings.append(
                Finding(
                    level: .ok, subject: "redis.capture",
                    message: "the server permits \(names); \(best.rawValue) is recommended",
                    hint: best == chosen ? nil : "docs/capture.md compares them"))
        }
        if let reason = reasons[chosen] {
            let other = permitted.first.map { "redis: { capture: \($0.rawValue) }; or " } ?? ""
            findings.append(
                Finding(
                    level: .failure, subject: "redis.capture", message: reason.text,
                    hint: other + (reason.hint ?? Self.permissions(chosen))))
        }
        return findings
    }

    private static func permissions(_ mode: Capture) -> String {
        mode == .replication
            ? "ACL SETUSER … +psync +replconf +ping; docs/permissions.md"
            : "docs/capture.md has the permissions of \(mode.rawValue)"
    }

    private func answer(_ mode: Capture) async -> Answer {
        if let refusal = info.refusal(mode) {
            return .forbidden(refusal.message, hint: refusal.hint)
        }
        switch mode {
        case .replication: return await replication()
        case .dirtySet:
            if let refusal = info.markEvictionRefusal {
                return .forbidden(refusal.message, hint: refusal.hint)
            }
            return await may("EVAL", try: ["EVAL", "return 1", "0"])
        case .tracking: return await may("CLIENT TRACKING", try: ["CLIENT", "TRACKING", "OFF"])
        }
    }

    // PSYNC can't be tried: the connection would be a replica's.
    private func replication() async -> Answer {
        let user = endpoint.user ?? "default"
        for command in [["PSYNC", "?", "-1"], ["REPLCONF", "ACK", "0"], ["PING"]] {
            guard let reply = try? await reader.send(["ACL", "DRYRUN", user] + command) else {
                // The user may not ask; whether the server has the command at all may be known.
                let found = try? await reader.send(["COMMAND", "DOCS", "psync"])
                return found?.isEmpty == true
                    ? .forbidden("the server has no PSYNC", hint: nil) : .permitted
            }
            guard reply.first == "OK" else {
                return .forbidden("the user \(user) may not use \(command[0])", hint: nil)
            }
        }
        return .permitted
    }

    private func may(_ name: String, try command: [String]) async -> Answer {
        do throws(RedisError) {
            _ = try await reader.send(command)
            return .permitted
        } catch {
            return .forbidden("Redis forbids \(name): \(error.message)", hint: nil)
        }
    }
}
