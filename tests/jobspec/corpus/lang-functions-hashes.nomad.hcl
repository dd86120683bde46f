job "lang-functions-hashes" {
  meta {
    a = md5("herder")
    b = sha1("herder")
    c = sha256("herder")
    d = sha512("herder")
    e = uuidv5("dns", "example.org")
  }

  group "app" {
    task "main" {
      driver = "raw_exec"

      config {
        command = "/bin/true"
      }
    }
  }
}
