job "lang-functions-time-and-net" {
  meta {
    a = formatdate("YYYY-MM-DD", "2026-02-03T04:05:06Z")
    b = timeadd("2026-02-03T04:05:06Z", "24h")
    c = cidrhost("10.0.0.0/24", 5)
    d = cidrnetmask("10.0.0.0/20")
    e = cidrsubnet("10.0.0.0/16", 8, 2)
    f = join(",", cidrsubnets("10.0.0.0/16", 4, 8))
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
