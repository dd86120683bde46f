job "lang-conditional-conversion" {
  meta {
    a = true ? 1 : "one"
    b = false ? "x" : null
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
