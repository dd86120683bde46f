job "lang-conditional-conversion" {
  region = false ? "x" : null
  meta {
    a = true ? 1 : "one"
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
