import ArgumentParser
import Foundation
import SluiceConfiguration

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

/// Asks the running instance through its admin listener.
struct AdminClient {
    let configuration: Configuration

    func ask(
        _ method: String, _ path: String, body: Data? = nil,
    ) async throws -> (status: Int, body: Data) {
        // What listens on all addresses listens on this machine's own too.
        let isAny = configuration.adminHost == "0.0.0.0"
        let host = isAny ? "127.0.0.1" : configuration.adminHost
        let text = "http://\(host):\(configuration.adminPort)\(path)"
        guard let url = URL(string: text) else { throw Sysexits.configuration }
        var request = URLRequest(url: url, timeoutInterval: 3_600)
        request.httpMethod = method
        request.httpBody = body
        if let token = configuration.adminToken {
            request.setValue("Bearer \(token)", forHTTPHeaderField: "Authorization")
        }
        let answer: (Data, URLResponse)
        do {
            answer = try await URLSession.shared.data(for: request)
        } catch {
            Terminal.complain(
                "no instance answers at \(text)",
                hint: "is `sluice run` running with this configuration (admin.listen)?")
            throw Sysexits.unavailable
        }
        let status = (answer.1 as? HTTPURLResponse)?.statusCode ?? 0
        guard status != 401 else {
            Terminal.complain(
                "the instance at \(text) wants another token",
                hint: "admin.token must be the one that `sluice run` was started with")
            throw Sysexits.permission
        }
        return (status, answer.0)
    }
}
