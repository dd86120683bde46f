job "lang-escapes" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      env {
        A = "tab\tquote\"backslash\\"
        B = "\u00e9\U0001F642"
        C = "$${NOT_NOW} %%{if}"
        D = "cost: $5, 10%"
      }
    }
  }
}
